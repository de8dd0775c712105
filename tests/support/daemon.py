"""A Docker daemon of a test's own, which can be stopped, killed and started again while the shared one works on."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define

START_SECONDS = 60
STOP_SECONDS = 60


@define
class Daemon:
    """It keeps images and containers in `directory`, and has no network but what is inside a container."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def start(self, *arguments: str) -> None:
        """Returns once it is ready, which it says as it would to systemd."""
        own = [
            "--data-root",
            "data",
            "--exec-root",
            "exec",
            "--pidfile",
            "pid",
            "--config-file",
            "daemon.json",
        ]
        paths = [word if word.startswith("--") else str(self.directory / word) for word in own]
        network = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness:
            notify = self.directory / "notify"  # by a path: names without one end at the network namespace
            notify.unlink(missing_ok=True)
            readiness.bind(str(notify))
            readiness.settimeout(START_SECONDS)
            with (self.directory / "dockerd.log").open("ab") as log:
                self.process = subprocess.Popen(
                    # Without a namespace of its own it would remove the shared one's bridge.
                    ["unshare", "--net", "dockerd", *paths, *network, f"--host={self.host}", *arguments],
                    env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while b"READY=1" not in readiness.recv(4096):
                pass

    def end(self, number: signal.Signals) -> None:
        """Ends it by a signal: SIGTERM as an upgrade does, SIGKILL as a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)
            self.process = None

    def run(self, *arguments: str) -> str:
        """What `docker` says of this one."""
        command = ["docker", "--host", self.host, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def own_daemon(image: str) -> Iterator[Daemon]:
    """One that runs and has an image of the shared one's; at the end nothing of it is left."""
    shared = subprocess.run(
        ["docker", "info", "--format", "{{.DockerRootDir}}"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    # Where the shared one has its data: there may be nowhere else that takes an overlay.
    directory = Path(tempfile.mkdtemp(prefix="pyexec-test-", dir=shared))
    (directory / "daemon.json").write_text("{}")
    daemon = Daemon(directory)
    try:
        daemon.start()
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "--host", daemon.host, "load", "--quiet"], stdin=save.stdout, check=True
            )
        yield daemon
    finally:
        if daemon.process is None:
            daemon.start()  # only it can clear away what it has left
        if left := daemon.run("ps", "--all", "--quiet").split():
            daemon.run("rm", "--force", *left)
        daemon.end(signal.SIGTERM)
        shutil.rmtree(directory)
