"""Docker on this machine: the one that runs, else one that is installed and started here."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from console import SetupError, print_step
from debian import install
from docker_api import DockerEngine
from subprocesses import RUN_DIR, last_log_line, run

_LOG = RUN_DIR / "dockerd.log"
_SOCKET = "unix:///var/run/docker.sock"
_START_SECONDS = 60.0


def ensure() -> DockerEngine:
    """An engine that answers: the one named by the environment, the usual one, or one started now."""
    named = _named()
    engine = DockerEngine(named or _SOCKET)
    if engine.answers():
        return engine
    if named:
        raise SetupError(
            f"No Docker Engine answers at {named}: start it, or unset DOCKER_HOST to use one on this machine."
        )
    if os.geteuid() != 0:
        raise SetupError(
            "No Docker Engine runs here, and starting one takes root: run this as root, or set DOCKER_HOST."
        )
    if shutil.which("dockerd") is None:
        install(["docker.io", "ca-certificates", *_apparmor()], "install Docker")
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], "start Docker")
        print_step("Started Docker with systemd")
    else:
        _start()
    if not engine.answers():
        raise SetupError(f"Docker was started, yet nothing answers at {_SOCKET}.")
    return engine


def _named() -> str | None:
    """The engine's address in the environment, as the server reads it."""
    if os.environ.get("PYEXEC_DOCKER_SOCKET"):
        return f"unix://{os.environ['PYEXEC_DOCKER_SOCKET']}"
    return os.environ.get("PYEXEC_DOCKER_HOST") or os.environ.get("DOCKER_HOST")


def _apparmor() -> list[str]:
    """On a kernel with AppArmor on, the engine starts no container without this package."""
    switch = Path("/sys/module/apparmor/parameters/enabled")
    return ["apparmor"] if switch.exists() and switch.read_text().strip() == "Y" else []


def _start() -> None:
    """Start dockerd in a session of its own, so that it outlives this command; return when it is ready."""
    with _readiness() as (listener, address), _LOG.open("ab") as log:
        daemon = subprocess.Popen(
            ["dockerd"],
            env={**os.environ, "NOTIFY_SOCKET": address},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        exited = os.pidfd_open(daemon.pid)
        try:
            heard, _, _ = select.select([listener.fileno(), exited], [], [], _START_SECONDS)
        finally:
            os.close(exited)
    if exited in heard:
        raise SetupError(f"dockerd ended at once, {last_log_line(_LOG)}")
    if not heard:
        daemon.terminate()
        raise SetupError(f"dockerd was not ready after {_START_SECONDS:.0f} seconds, {last_log_line(_LOG)}")
    print_step(f"Started dockerd, which stays running (process {daemon.pid}, log {_LOG})")


@contextlib.contextmanager
def _readiness() -> Iterator[tuple[socket.socket, str]]:
    """A socket on which dockerd says that it is ready, as it would to systemd, and its address."""
    name = f"pyexec-dockerd-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        yield listener, f"@{name}"
