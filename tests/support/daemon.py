"""A separate Docker daemon for one test, which can be stopped, killed and restarted. The shared one is not affected."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define

START_SECONDS = 60
STOP_SECONDS = 60
ANSWER_SECONDS = 120
"""Timeout of docker commands, so that a daemon that hangs fails only its own test."""


CONTAINERD = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
root = "{0}/containerd"
state = "{0}/containerd-state"
[grpc]
address = "{0}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{0}/opt"
"""


@define
class Daemon:
    """A daemon with all its data in `directory`. Its containers have no network. Its containerd is a separate process,
    as in a distribution, and keeps running when the daemon ends."""

    directory: Path
    containerd: subprocess.Popen[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def start(self, *arguments: str) -> None:
        """Start the daemon, and wait until it is ready."""
        if self.containerd is None:
            config = self.directory / "containerd.toml"
            config.write_text(CONTAINERD.format(self.directory))
            self.containerd = self._start("containerd", f"--config={config}")
        config = self.directory / "daemon.json"
        config.write_text("{}")
        self.process = self._start(
            # A separate network namespace: otherwise --bridge=none REMOVES docker0 of the shared daemon.
            "unshare",
            "--net",
            "dockerd",
            f"--config-file={config}",
            f"--data-root={self.directory}/data",
            f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/pid",
            f"--containerd={self.directory}/containerd.sock",
            f"--host={self.host}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            *arguments,
        )

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program, and wait for its readiness message (the protocol of sd_notify)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness:
            notify = (
                self.directory / "notify"
            )  # an abstract socket cannot be reached from another network namespace
            notify.unlink(missing_ok=True)
            readiness.bind(str(notify))
            readiness.settimeout(START_SECONDS)
            with (self.directory / f"{'dockerd' if 'dockerd' in command else command[0]}.log").open(
                "ab"
            ) as log:
                process = subprocess.Popen(
                    command,
                    env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            try:
                while b"READY=1" not in readiness.recv(4096):
                    pass
            except BaseException:
                process.kill()
                process.wait(STOP_SECONDS)
                raise
        return process

    def end(self, number: signal.Signals) -> None:
        """End the daemon with a signal: SIGTERM like an upgrade, or SIGKILL like a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)
            self.process = None

    def clear(self) -> None:
        """Remove all containers, end the daemon and containerd, and delete the data.

        If the daemon has crashed, start it first: only the daemon can remove its containers."""
        if self.process is None:
            self.start()
        for container in self.run("ps", "--all", "--quiet").split():
            with suppress(subprocess.CalledProcessError):  # it is being removed already
                self.run("rm", "--force", container)
        self.end(signal.SIGTERM)
        if self.containerd is not None:
            self.containerd.terminate()
            self.containerd.wait(STOP_SECONDS)
        shutil.rmtree(self.directory)

    def run(self, *arguments: str) -> str:
        """Run a `docker` command on this daemon, and return its output."""
        command = ["docker", "--host", self.host, *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, timeout=ANSWER_SECONDS
        ).stdout


@contextmanager
def own_daemon(image: str, *arguments: str) -> Iterator[Daemon]:
    """Run a daemon with `image` copied from the shared one; delete everything at the end."""
    shared = subprocess.run(
        ["docker", "info", "--format", "{{.DockerRootDir}}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=ANSWER_SECONDS,
    ).stdout.strip()
    # Below the data of the shared daemon: other file systems may not support overlay mounts.
    directory = Path(tempfile.mkdtemp(prefix="pyexec-test-", dir=shared))
    daemon = Daemon(directory)
    try:
        daemon.start(*arguments)
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "--host", daemon.host, "load", "--quiet"],
                stdin=save.stdout,
                check=True,
                timeout=ANSWER_SECONDS,
            )
        yield daemon
    finally:
        daemon.clear()
