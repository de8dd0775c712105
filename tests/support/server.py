"""A real server as a child process, on a free port."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from pyexec.app import main
from tests.support.forked import ForkedProcess, start_forked

Process = subprocess.Popen[str] | ForkedProcess
PROGRAM = Path(sys.executable).parent / "python-executor-server"
START_SECONDS = 120
STOP_SECONDS = 60
NETWORKS = {"run_network": "pyexec-run", "setup_network": "pyexec-setup"}
"""The default networks. Most servers of the tests use none: the check of each network starts a container."""
SETUP_NETWORK = {"setup_network": NETWORKS["setup_network"]}
"""For servers whose programs need no network."""
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
GLOBAL_SETTINGS: dict[str, str] = {}
"""Settings of every server, from pytest's command line."""


@frozen
class Server:
    """A running server: its URL, process, data directory and log file."""

    url: str
    process: Process
    data_dir: Path
    log: Path

    def stop(self) -> int:
        """Send SIGTERM, wait until the server has exited, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def installing_settings() -> dict[str, str]:
    """Return settings with which setups use this machine's package index and certificate authorities."""
    settings = {**NETWORKS}
    if AUTHORITIES.exists():
        settings["ca_bundle"] = str(AUTHORITIES)
    if index := os.environ.get("PIP_INDEX_URL"):
        settings["pip_index_url"] = index
    return settings


@contextmanager
def killed_after(seconds: float, process: Process) -> Iterator[None]:
    """Kill the process if the block takes longer than `seconds`."""
    patience = threading.Timer(seconds, process.kill)
    patience.start()
    try:
        yield
    finally:
        patience.cancel()


@contextmanager
def running_server(
    data_dir: Path,
    image: str,
    command: Sequence[str | Path] | None = None,
    authorities: Path | str = os.devnull,
    **settings: str,
) -> Iterator[Server]:
    """Run a server with these settings (names without the prefix, in lower case); stop it at the end.

    `command` replaces the usual command. `authorities` has the certificates that the server trusts."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYEXEC_")}
    own = {
        "port": "0",
        "data_dir": str(data_dir),
        "default_image": image,
        "warm_pool": "1",
        "run_network": "none",
        "setup_network": "none",
        "firewall": "off",  # the tests share the machine and its networks
        **GLOBAL_SETTINGS,
        **settings,
    }
    environment |= {f"PYEXEC_{name.upper()}": value for name, value in own.items()}
    # aiohttp loads this file twice when it is imported, which takes a tenth of a start. Few servers here need it.
    environment["SSL_CERT_FILE"] = str(authorities)
    log = data_dir.parent / f"{data_dir.name}.log"
    process: Process
    with log.open("w") as log_file:
        if command is None and authorities == os.devnull:
            process = start_forked(main, PROGRAM.name, environment, log_file.fileno())
        else:
            process = subprocess.Popen(
                command or [PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=log_file, text=True
            )
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no standard output")
        with killed_after(START_SECONDS, process):
            line = process.stdout.readline()
        found = re.fullmatch(r"listening on (http://\S+)\n", line)
        if found is None:
            raise RuntimeError(f"the server did not start: {line}{log.read_text()}")
        server = Server(url=found[1], process=process, data_dir=data_dir, log=log)
        yield server
        code = server.stop()
        if code not in (0, -signal.SIGKILL):  # a test may have killed it
            raise RuntimeError(f"the server exited with code {code}: {log.read_text()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
