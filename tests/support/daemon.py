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
"""A daemon that hangs fails a test, and nothing more."""


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
    """It keeps images and containers in `directory`, and has no network but what is inside a container. Its
    containerd is a program beside it, as a distribution's own is, and is left alone."""

    directory: Path
    containerd: subprocess.Popen[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def start(self, *arguments: str) -> None:
        """Returns once it is ready."""
        if self.containerd is None:
            config = self.directory / "containerd.toml"
            config.write_text(CONTAINERD.format(self.directory))
            self.containerd = self._start("containerd", f"--config={config}")
        config = self.directory / "daemon.json"
        config.write_text("{}")
        self.process = self._start(
            # A network namespace of its own: with --bridge=none it REMOVES the shared daemon's docker0 else.
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
        """A program that has said that it is ready, as it would to systemd."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as readiness:
            notify = self.directory / "notify"  # by a path: a name without one ends at the network namespace
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
        """Ends it by a signal: SIGTERM as an upgrade does, SIGKILL as a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)
            self.process = None

    def clear(self) -> None:
        """Ends all, and leaves nothing; only the daemon itself can clear away what it has left by a crash."""
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
        """What `docker` says of this one."""
        command = ["docker", "--host", self.host, *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, timeout=ANSWER_SECONDS
        ).stdout


@contextmanager
def own_daemon(image: str, *arguments: str) -> Iterator[Daemon]:
    """One that runs and has an image of the shared one's; at the end nothing of it is left."""
    shared = subprocess.run(
        ["docker", "info", "--format", "{{.DockerRootDir}}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=ANSWER_SECONDS,
    ).stdout.strip()
    # Where the shared one has its data: there may be nowhere else that takes an overlay.
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
