"""Everything that the server and the tests need on this machine: Docker, .venv, a Python image."""

from __future__ import annotations

from dataclasses import dataclass

import default_image
import dockerd
import subprocesses
import virtualenv
from docker_api import DockerEngine


@dataclass(frozen=True)
class Machine:
    """A provisioned machine: its Docker Engine, and the name of a Python image on it."""

    engine: DockerEngine
    image: str


def provision(*, dev: bool) -> Machine:
    """Install what is missing; `dev` adds the tools for tests and checks."""
    subprocesses.prepare()
    virtualenv.choose_python()
    engine = dockerd.ensure()  # first, to fail early: it needs root, or a running Docker
    virtualenv.ensure(dev=dev)
    return Machine(engine, default_image.ensure(engine))
