"""`make run`: from a bare machine to a server that has run its first program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Container

from command import RUN_DIR
from engine import Engine
from provision import Machine, provision
from report import Failure, exit_code_of, say
from server import Server
from virtualenv import BIN

_LABEL = "pyexec.deployment"
_HELLO = "print('Hello from a sandbox')\n"


def main() -> int:
    machine = provision(dev=False)
    before = machine.engine.containers(_LABEL).keys()
    with Server(_environment(machine)) as server:
        url = server.wait_until_ready()
        if url is not None:
            _say_hello(server, url)
            say(f"python-executor listens on {url}. Try, in another terminal:")
            print(f"\n    echo 'print(6 * 7)' | {BIN / 'python-executor'} --server {url}\n", flush=True)
            say("Ctrl-C stops it")
        code = server.wait()
    if not server.stopping:
        return 1
    _check_nothing_left(machine.engine, before)
    return code


def _environment(machine: Machine) -> dict[str, str]:
    """The server's settings: what the caller set goes first."""
    found = {
        "PYEXEC_DATA_DIR": str(RUN_DIR / "data"),
        "PYEXEC_DEFAULT_IMAGE": machine.image,
        "PYEXEC_DOCKER_HOST": machine.engine.address,
    }
    return {**found, **os.environ}


def _say_hello(server: Server, url: str) -> None:
    say("Running a first program through the command line")
    hello = subprocess.run([BIN / "python-executor", "--server", url], input=_HELLO, text=True, check=False)
    if hello.returncode != 0 and not server.stopping:
        raise Failure(f"The first program did not run: python-executor ended with {hello.returncode}.")


def _check_nothing_left(engine: Engine, before: Container[str]) -> None:
    left = [identity[:12] for identity in engine.containers(_LABEL) if identity not in before]
    if left:
        raise Failure(f"The server left containers behind: {', '.join(left)}.")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
