"""The Docker Engine of this machine: use a running one, otherwise install and start it."""

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
_DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
_START_SECONDS = 60.0


def ensure() -> DockerEngine:
    """Return an available engine: the configured one, the default one, or one that is started now."""
    configured = _configured_address()
    engine = DockerEngine(configured or _DEFAULT_ADDRESS)
    if engine.is_available():
        return engine
    if configured:
        raise SetupError(
            f"Cannot connect to Docker at {configured}: start it, or unset DOCKER_HOST to use this machine's Docker."
        )
    if os.geteuid() != 0:
        raise SetupError(
            "Docker is not running, and only root can start it: run this as root, or set DOCKER_HOST."
        )
    if shutil.which("dockerd") is None:
        install(["docker.io", "ca-certificates", *_apparmor()], "install Docker")
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], "start Docker")
        print_step("Started Docker with systemd")
    else:
        _start()
    if not engine.is_available():
        raise SetupError(f"Docker was started, but does not respond at {_DEFAULT_ADDRESS}.")
    return engine


def _configured_address() -> str | None:
    """Return the engine's address from the environment, by the same rules as the server."""
    if os.environ.get("PYEXEC_DOCKER_SOCKET"):
        return f"unix://{os.environ['PYEXEC_DOCKER_SOCKET']}"
    return os.environ.get("PYEXEC_DOCKER_HOST") or os.environ.get("DOCKER_HOST")


def _apparmor() -> list[str]:
    """Return the package that Docker needs to start containers on a kernel with AppArmor enabled."""
    switch = Path("/sys/module/apparmor/parameters/enabled")
    return ["apparmor"] if switch.exists() and switch.read_text().strip() == "Y" else []


def _start() -> None:
    """Start dockerd and wait until it is ready. It keeps running after this script ends."""
    with _notify_socket() as (listener, address), _LOG.open("ab") as log:
        daemon = subprocess.Popen(
            ["dockerd"],
            env={**os.environ, "NOTIFY_SOCKET": address},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        pidfd = os.pidfd_open(daemon.pid)
        try:
            ready, _, _ = select.select([listener.fileno(), pidfd], [], [], _START_SECONDS)
        finally:
            os.close(pidfd)
    if pidfd in ready:
        raise SetupError(f"dockerd exited during its start. {last_log_line(_LOG)}")
    if not ready:
        daemon.terminate()
        raise SetupError(f"dockerd was not ready after {_START_SECONDS:.0f} seconds. {last_log_line(_LOG)}")
    print_step(f"Started dockerd; it keeps running (process {daemon.pid}, log {_LOG})")


@contextlib.contextmanager
def _notify_socket() -> Iterator[tuple[socket.socket, str]]:
    """Open a socket for dockerd's readiness message (the protocol of sd_notify); yield it and its address."""
    name = f"pyexec-dockerd-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        yield listener, f"@{name}"
