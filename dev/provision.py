"""Everything a machine needs before the server or the tests can start."""

from __future__ import annotations

from dataclasses import dataclass

import default_image
import dockerd
import subprocesses
import virtualenv
from docker_api import DockerEngine


@dataclass(frozen=True)
class Machine:
    """A machine that is ready: its Docker Engine, and the name of a Python image there."""

    engine: DockerEngine
    image: str


def provision(*, dev: bool) -> Machine:
    """Find or make what is missing; a second time it only looks."""
    subprocesses.prepare()
    virtualenv.check_python()
    engine = dockerd.ensure()  # first: whoever cannot have Docker should not wait for the rest
    virtualenv.ensure(dev=dev)
    return Machine(engine, default_image.ensure(engine))
