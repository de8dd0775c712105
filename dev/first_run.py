"""Server settings, the first program and the final check, shared by `make run` and `make cluster`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from console import SetupError, print_step
from docker_api import DockerEngine
from provision import Machine
from server_process import ServerProcess
from virtualenv import BIN

_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_HELLO = "print('Hello from a sandbox')\n"


def server_environment(machine: Machine, **settings: str) -> dict[str, str]:
    """Return the environment of the servers and the client: defaults, `settings`, then the caller's own variables."""
    defaults = {
        "PYEXEC_DEFAULT_IMAGE": machine.image,
        "PYEXEC_DOCKER_HOST": machine.engine.address,
        **{f"PYEXEC_{name.upper()}": value for name, value in settings.items()},
    }
    if _CA_BUNDLE.exists():  # the machine's network may need certificate authorities of its own
        defaults["PYEXEC_CA_BUNDLE"] = str(_CA_BUNDLE)
    if index := os.environ.get("PIP_INDEX_URL"):
        defaults["PYEXEC_PIP_INDEX_URL"] = index
    if tokens := os.environ.get("PYEXEC_API_TOKENS"):
        defaults["PYEXEC_TOKEN"] = tokens.split(",")[0].strip()
    return {**defaults, **os.environ}


def run_first_program(server: ServerProcess, url: str, environment: dict[str, str]) -> None:
    """Run a program with the command line client; raise a `SetupError` if it fails."""
    print_step(f"Running a first program on {url}")
    client = [str(BIN / "python-executor"), "--server", url]
    done = subprocess.run(client, input=_HELLO, text=True, env=environment, check=False)
    if done.returncode != 0 and not server.stopping:
        raise SetupError(
            f"The first program failed on {url}: python-executor exited with code {done.returncode}."
        )


def print_example(url: str) -> None:
    """Print a command to try in another terminal."""
    token = " --token TOKEN" if os.environ.get("PYEXEC_API_TOKENS") else ""
    print(f"\n    echo 'print(6 * 7)' | {BIN / 'python-executor'} --server {url}{token}\n", flush=True)
    print_step("Press Ctrl-C to stop")


def list_containers(engine: DockerEngine, deployment: str) -> list[str]:
    """List the containers of a deployment, running or stopped."""
    return engine.containers(f"pyexec.deployment={deployment}")


def check_no_containers_left(engine: DockerEngine, deployment: str, stopped: str = "Stopped") -> None:
    """Print that everything is stopped; raise a `SetupError` if containers of the deployment remain."""
    left = [identity[:12] for identity in list_containers(engine, deployment)]
    if left:
        raise SetupError(f"Containers remain after the servers have stopped: {', '.join(left)}.")
    print_step(f"{stopped}; no containers remain")
