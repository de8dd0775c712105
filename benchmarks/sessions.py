"""Interpreter sessions: a cell, 10,000 cells, opening a session, and files, compared with Python and Docker alone."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.baselines import DOCKER_RUN, BarePython, bare_python
from benchmarks.report import Measurement, RatioBound, Section
from benchmarks.service import Service, running_service, tar_of
from benchmarks.timing import Row, measure, print_progress, timed
from tests.support.images import environments_of, own_image
from tests.support.server import installing_settings

ROUNDS = 15
FILE_ROUNDS = 5
CELLS = 10_000
WINDOW = 500
FILE_MIB = 64
JSON = {"Content-Type": "application/json"}
CONFIG = {"config": {"memory_mb": 256, "disk_mb": 256}}
WORK = "/work:rw,exec,nosuid,nodev,size=256m"
PAUSE = ("python3", "-c", "import signal; signal.pause()")
IMPORT_IPYTHON = b"import IPython\nprint('hello')\n"


class OpenSession:
    """A session is opened while the pool has a sandbox of its kind. It is closed without being timed."""

    name = "open a session"

    def __init__(self, service: Service) -> None:
        self._service = service

    def run(self) -> float:
        seconds, document = open_session(self._service)
        self._service.request("DELETE", f"/api/v1/sessions/{document['id']}")
        return seconds


class Cell:
    """`1+1` in an open session."""

    name = "cell of 1+1"

    def __init__(self, service: Service, session: str) -> None:
        self._service = service
        self._path = f"/api/v1/sessions/{session}/eval"

    def run(self) -> float:
        seconds, result = self._service.post(self._path, json.dumps({"code": "1+1"}).encode(), JSON)
        if result.get("result") != "2":
            raise RuntimeError(f"the cell did not return 2: {result}")
        return seconds


class SessionFile:
    """A file into a session and back: one PUT and one GET over an open connection, from memory to a tmpfs to memory.

    The content is random. The comparison with what was sent, and the deletion, are not timed."""

    name = f"{FILE_MIB} MiB up and down"

    def __init__(self, service: Service, session: str, content: bytes) -> None:
        self._service = service
        self._path = f"/api/v1/sessions/{session}/files/content"
        self._content = content

    def run(self) -> float:
        with timed() as watch:
            self._service.request("PUT", self._path, self._content, status=204)
            found = self._service.request("GET", self._path)
        if found != self._content:
            raise RuntimeError("another file came back")
        self._service.request("DELETE", self._path, status=204)
        return watch.seconds


class DockerExecTar:
    """The same file as a tar into a container with a tmpfs and back: `docker exec` with tar, twice.

    The tar is read from a file that is in the page cache, and comes back into memory. Each `docker exec` starts a
    client and a process in the container, about a tenth of a second each, which belongs to this way to copy files."""

    name = f"{FILE_MIB} MiB docker exec tar"

    def __init__(self, container: str, archive: Path) -> None:
        self._exec = ("docker", "exec", "-i", container, "tar", "-C", "/work")
        self._archive = archive

    def run(self) -> float:
        with self._archive.open("rb") as file, timed() as watch:
            subprocess.run([*self._exec, "-x"], stdin=file, check=True)
            found = subprocess.run([*self._exec, "-c", "content"], check=True, stdout=subprocess.PIPE).stdout
        if len(found) < FILE_MIB * 1024**2:
            raise RuntimeError(f"only {len(found)} bytes came back")
        return watch.seconds


BARE, IMPORT = BarePython.name, "python3, import IPython"
BOUNDS = (
    RatioBound(row=Cell.name, reference=BARE, factor=0.6),
    RatioBound(row=OpenSession.name, reference=IMPORT, factor=2),
    RatioBound(row=SessionFile.name, reference=DockerExecTar.name, factor=1.5),
)


def measure_sessions(image: str) -> Section:
    """Measure sessions. Takes about five minutes; most of it is for 10,000 cells."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        own = stack.enter_context(own_image(image))
        service = stack.enter_context(running_service(own, **installing_settings()))
        session = open_session(service)[1]["id"]
        (with_ipython,) = environments_of(own)
        bare = stack.enter_context(bare_python(own))
        imports = stack.enter_context(bare_python(with_ipython, IMPORT_IPYTHON, name=IMPORT))
        cell = Cell(service, session)
        rows: list[tuple[Row, int]] = [(bare, 4), (cell, 4), (imports, 1), (OpenSession(service), 1)]
        container = stack.enter_context(working_container(own))
        content = os.urandom(FILE_MIB * 1024**2)
        file_rows: list[tuple[Row, int]] = [
            (DockerExecTar(container, tar_file(directory, content)), 1),
            (SessionFile(service, session, content), 1),
        ]
        for row, _ in (*rows, *file_rows, rows[-1]):  # the first run of each is not counted
            row.run()
        wait_until_idle = partial(service.wait_until_idle, sessions=1)
        samples = {**measure(rows, ROUNDS, wait_until_idle), **measure(file_rows, FILE_ROUNDS)}
        growth = measure_growth(cell)
    return Section(
        title="Sessions", samples=samples, references=(BARE, IMPORT), bounds=BOUNDS, measurements=[growth]
    )


def measure_growth(cell: Cell) -> Measurement:
    """Run 10,000 cells in one session. Compare the median of the last 500 with that of the first 500."""
    seconds: list[float] = []
    for number in range(CELLS):
        seconds.append(cell.run())
        if number % WINDOW == 0:
            print_progress(f"cell {number} of {CELLS}")
    ratio = median(seconds[-WINDOW:]) / median(seconds[:WINDOW])
    return Measurement(
        name=f"last {WINDOW} of {CELLS} cells / first {WINDOW}", value=ratio, unit="×", at_most=1.2
    )


def open_session(service: Service) -> tuple[float, Any]:
    """Open a session; return the seconds, and the session."""
    return service.post("/api/v1/sessions", json.dumps(CONFIG).encode(), JSON, status=201)


@contextmanager
def working_container(image: str) -> Iterator[str]:
    """Start a container with a tmpfs like that of a sandbox; yield its id."""
    start = [*DOCKER_RUN, "-d", "--init", "--tmpfs", WORK, image, *PAUSE]
    container = subprocess.run(start, capture_output=True, check=True, text=True).stdout.strip()
    try:
        yield container
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)


def tar_file(directory: Path, content: bytes) -> Path:
    """Write a tar with one file."""
    archive = directory / "content.tar"
    archive.write_bytes(tar_of("content", content))
    return archive
