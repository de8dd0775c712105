"""What `make run` and `make cluster` do alike: settings, a first program, and a look at what is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from engine import Engine
from provision import Machine
from report import Failure, say
from server import Server
from virtualenv import BIN

_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_HELLO = "print('Hello from a sandbox')\n"


def environment(machine: Machine, **settings: str) -> dict[str, str]:
    """The servers' settings, and the client's token: what the caller set goes before `settings`."""
    found = {
        "PYEXEC_DEFAULT_IMAGE": machine.image,
        "PYEXEC_DOCKER_HOST": machine.engine.address,
        **{f"PYEXEC_{name.upper()}": value for name, value in settings.items()},
    }
    if _AUTHORITIES.exists():  # the machine's own, because its network may have some of its own
        found["PYEXEC_CA_BUNDLE"] = str(_AUTHORITIES)
    if index := os.environ.get("PIP_INDEX_URL"):
        found["PYEXEC_PIP_INDEX_URL"] = index
    tokens = os.environ.get("PYEXEC_API_TOKENS")
    if tokens:
        found["PYEXEC_TOKEN"] = tokens.split(",")[0].strip()
    return {**found, **os.environ}


def say_hello(server: Server, url: str, environment: dict[str, str]) -> None:
    """Run a first program through the command line; a Failure if it does not run."""
    say(f"Running a first program on {url} through the command line")
    command = [str(BIN / "python-executor"), "--server", url]
    hello = subprocess.run(command, input=_HELLO, text=True, env=environment, check=False)
    if hello.returncode != 0 and not server.stopping:
        raise Failure(
            f"The first program did not run at {url}: python-executor ended with {hello.returncode}."
        )


def say_how(url: str) -> None:
    """The line that a person may try, in another terminal."""
    token = " --token TOKEN" if os.environ.get("PYEXEC_API_TOKENS") else ""
    print(f"\n    echo 'print(6 * 7)' | {BIN / 'python-executor'} --server {url}{token}\n", flush=True)
    say("Ctrl-C stops it")


def containers(engine: Engine, deployment: str) -> list[str]:
    """Every container of these servers, running or not."""
    return engine.containers(f"pyexec.deployment={deployment}")


def check_nothing_left(engine: Engine, deployment: str, stopped: str = "Stopped") -> None:
    """A Failure if containers of these servers are still there."""
    left = [identity[:12] for identity in containers(engine, deployment)]
    if left:
        raise Failure(f"Containers were left behind: {', '.join(left)}.")
    say(f"{stopped}; no container is left")
