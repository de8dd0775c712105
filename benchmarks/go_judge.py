"""go-judge, another server that runs programs in reused containers: https://github.com/criyle/go-judge (MIT).

It runs with its default settings, and with the Python of this machine."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.baselines import HELLO
from benchmarks.timing import timed
from tests.support.consul import free_ports

PACKAGE = "github.com/criyle/go-judge/cmd/go-judge"
MODULE = Path(__file__).resolve().parent / "go-judge"
"""A Go module that pins go-judge and its dependencies. v1.8.5 is the latest version on the Go module proxy (2026-11).
`go install PACKAGE@VERSION` does not work there, because the proxy refuses the request for the list of versions."""
HOME = Path(__file__).resolve().parent.parent / ".run" / "go-judge"
START_SECONDS = 30.0
SECOND_NS, MIB = 1_000_000_000, 1024 * 1024
REQUEST: dict[str, Any] = {
    "args": ["/usr/bin/python3", "main.py"],
    "env": ["PATH=/usr/bin:/bin"],
    "files": [{"content": ""}, {"name": "stdout", "max": 10240}, {"name": "stderr", "max": 10240}],
    "copyIn": {"main.py": {"content": HELLO.decode()}},
    "cpuLimit": 10 * SECOND_NS,
    "clockLimit": 20 * SECOND_NS,
    "memoryLimit": 1024 * MIB,
    "procLimit": 64,
}
BODY = json.dumps({"cmd": [REQUEST]}).encode()


class GoJudgeUnavailable(Exception):
    """go-judge cannot be built or started on this machine."""


class GoJudge:
    """The same program in `POST /run` of go-judge, over a kept-alive connection."""

    name = "go-judge"

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def run(self) -> float:
        with timed() as watch:
            self._connection.request("POST", "/run", body=BODY, headers={"Content-Type": "application/json"})
            text = self._connection.getresponse().read()
        [result] = json.loads(text)
        if result["status"] != "Accepted" or result["files"]["stdout"] != "hello\n":
            raise RuntimeError(f"go-judge did not print hello: {result}")
        return watch.seconds


class GoJudgeServer:
    """A running go-judge."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def connection(self) -> Iterator[GoJudge]:
        """Open a connection; yield the row that uses it."""
        with closing(HTTPConnection("127.0.0.1", self._port)) as connection:
            yield GoJudge(connection)


@contextmanager
def running_go_judge() -> Iterator[GoJudgeServer]:
    """Start go-judge, and wait until it has run a program; stop it at the end. Needs root.

    Raises `GoJudgeUnavailable`."""
    port = free_ports(["http"])["http"]
    HOME.mkdir(parents=True, exist_ok=True)
    command = [_program(), "-http-addr", f"127.0.0.1:{port}"]
    log = HOME / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=HOME, stdout=output, stderr=output) as process,
    ):
        try:
            server = GoJudgeServer(port)
            _wait_until_ready(server, process, log)
            yield server
        finally:
            process.terminate()


def _program() -> str:
    """Return the go-judge on PATH, else the pinned version, which is built in `.run`."""
    if found := shutil.which("go-judge"):
        return found
    program = HOME / "go-judge"
    command = ["go", "build", "-C", str(MODULE), "-o", str(program), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise GoJudgeUnavailable("building it needs Go on PATH") from error
    if done.returncode:
        raise GoJudgeUnavailable(done.stderr.strip())
    return str(program)


def _wait_until_ready(server: GoJudgeServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(ConnectionRefusedError), server.connection() as row:
            try:
                row.run()
            except RuntimeError as error:
                raise GoJudgeUnavailable(str(error)) from error
            return
        time.sleep(0.1)  # it does not say when it is ready
    raise GoJudgeUnavailable(f"it did not start: {log.read_text()}")
