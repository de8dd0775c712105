"""What `make run` and `make cluster` do alike: settings, a first program, and a look at what is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from console import SetupError, print_step
from docker_api import DockerEngine
from provision import Machine
from server_process import ServerProcess
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


def run_first_program(server: ServerProcess, url: str, environment: dict[str, str]) -> None:
    """Run a first program through the command line; a SetupError if it does not run."""
    print_step(f"Running a first program on {url} through the command line")
    command = [str(BIN / "python-executor"), "--server", url]
    hello = subprocess.run(command, input=_HELLO, text=True, env=environment, check=False)
    if hello.returncode != 0 and not server.stopping:
        raise SetupError(
            f"The first program did not run at {url}: python-executor ended with {hello.returncode}."
        )


def print_example(url: str) -> None:
    """The line that a person may try, in another terminal."""
    token = " --token TOKEN" if os.environ.get("PYEXEC_API_TOKENS") else ""
    print(f"\n    echo 'print(6 * 7)' | {BIN / 'python-executor'} --server {url}{token}\n", flush=True)
    print_step("Ctrl-C stops it")


def containers(engine: DockerEngine, deployment: str) -> list[str]:
    """Every container of these servers, running or not."""
    return engine.containers(f"pyexec.deployment={deployment}")


def check_no_containers_left(engine: DockerEngine, deployment: str, stopped: str = "Stopped") -> None:
    """A SetupError if containers of these servers are still there."""
    left = [identity[:12] for identity in containers(engine, deployment)]
    if left:
        raise SetupError(f"Containers were left behind: {', '.join(left)}.")
    print_step(f"{stopped}; no container is left")
