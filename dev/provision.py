"""Everything a machine needs before the server or the tests can start."""

from __future__ import annotations

from dataclasses import dataclass

import command
import dockerd
import image
import virtualenv
from engine import Engine


@dataclass(frozen=True)
class Machine:
    """A machine that is ready: its Docker Engine, and the name of a Python image there."""

    engine: Engine
    image: str


def provision(*, dev: bool) -> Machine:
    """Find or make what is missing; a second time it only looks."""
    command.prepare()
    virtualenv.check_python()
    engine = dockerd.ensure()  # first: whoever cannot have Docker should not wait for the rest
    virtualenv.ensure(dev=dev)
    return Machine(engine, image.ensure(engine))
