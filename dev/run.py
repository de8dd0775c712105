"""`make run`: from a bare machine to a server that has run its first program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from command import RUN_DIR
from engine import Engine
from provision import Machine, provision
from report import Failure, exit_code_of, say
from server import Server
from virtualenv import BIN

_HELLO = "print('Hello from a sandbox')\n"


def main() -> int:
    machine = provision(dev=False)
    environment = _environment(machine)
    with Server(environment) as server:
        url = server.wait_until_ready()
        if url is not None:
            _say_hello(server, url, environment)
        if not server.stopping:
            say(f"python-executor listens on {url}; try, in another terminal:")
            print(f"\n    echo 'print(6 * 7)' | {BIN / 'python-executor'} --server {url}\n", flush=True)
            say("Ctrl-C stops it")
        code = server.wait()
    if not server.stopping:
        raise Failure(f"The server ended by itself, with {code}.")
    _check_nothing_left(machine.engine, Path(environment["PYEXEC_DATA_DIR"]))
    return code


def _environment(machine: Machine) -> dict[str, str]:
    """The server's settings, and the client's token: what the caller set goes first."""
    found = {
        "PYEXEC_DATA_DIR": str(RUN_DIR / "data"),
        "PYEXEC_DEFAULT_IMAGE": machine.image,
        "PYEXEC_DOCKER_HOST": machine.engine.address,
    }
    tokens = os.environ.get("PYEXEC_API_TOKENS")
    if tokens:
        found["PYEXEC_TOKEN"] = tokens.split(",")[0].strip()
    return {**found, **os.environ}


def _say_hello(server: Server, url: str, environment: dict[str, str]) -> None:
    say("Running a first program through the command line")
    command = [str(BIN / "python-executor"), "--server", url]
    hello = subprocess.run(command, input=_HELLO, text=True, env=environment, check=False)
    if hello.returncode != 0 and not server.stopping:
        raise Failure(f"The first program did not run: python-executor ended with {hello.returncode}.")


def _check_nothing_left(engine: Engine, data: Path) -> None:
    """A Failure if containers of this server are still there; its data directory knows its name."""
    name = data / "deployment"
    if not name.exists():  # it was stopped before it had begun
        return
    deployment = name.read_text().strip()
    left = [identity[:12] for identity in engine.containers(f"pyexec.deployment={deployment}")]
    if left:
        raise Failure(f"The server left containers behind: {', '.join(left)}.")
    say("Stopped; no container is left")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
