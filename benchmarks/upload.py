"""Upload of a 1 GiB tar to the service, compared with `docker exec … tar -x`."""

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.baselines import DOCKER_RUN
from benchmarks.report import Measurement, RatioBound, Section
from benchmarks.service import Service, running_service
from benchmarks.timing import Row, measure, timed

ROUNDS = 3
MEMORY_GROWTH_MIB_MAX = 64

CONTENT_BYTES = 1024**3
BLOCK_BYTES = 1024**2
MAIN = b'import os\nprint(os.path.getsize("content"))\n'
WORK = "/work:rw,exec,nosuid,nodev,size=2048m"


class DockerExecTar:
    """The archive piped into `docker exec -i … tar -x`, unpacked onto a tmpfs as in a sandbox."""

    name = "1 GiB docker exec tar"

    def __init__(self, image: str, archive: Path) -> None:
        self._image = image
        self._archive = archive

    def run(self) -> float:
        pause = ["python3", "-c", "import signal; signal.pause()"]
        start = [*DOCKER_RUN, "-d", "--init", "--tmpfs", WORK, self._image, *pause]
        container = subprocess.run(start, capture_output=True, check=True, text=True).stdout.strip()
        try:
            unpack = ["docker", "exec", "-i", container, "tar", "-x", "-C", "/work"]
            with self._archive.open("rb") as file, timed() as watch:
                subprocess.run(unpack, stdin=file, check=True)
        finally:
            subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)
        return watch.seconds


class UploadSync:
    """The archive as a synchronous run of a program that checks the size of the unpacked file."""

    name = "1 GiB sync"

    def __init__(self, service: Service, archive: Path) -> None:
        self._service = service
        self._archive = archive
        self._pid = service.server.process.pid
        self.memory_growth_bytes = 0
        """The largest growth of the server's resident memory during a run."""

    def run(self) -> float:
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # resets VmHWM
        before = _status_bytes(self._pid, "VmRSS")
        seconds, result = self._service.execute(b"{}", self._archive)
        if result.get("stdout") != f"{CONTENT_BYTES}\n":
            raise RuntimeError(f"the unpacked file has the wrong size: {result}")
        self.memory_growth_bytes = max(self.memory_growth_bytes, _status_bytes(self._pid, "VmHWM") - before)
        return seconds


def measure_upload(image: str) -> Section:
    """Measure the upload's time and the server's memory. Takes about half a minute."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        service = stack.enter_context(running_service(image))
        archive = stack.enter_context(large_archive(directory))
        upload = UploadSync(service, archive)
        rows: list[tuple[Row, int]] = [(DockerExecTar(image, archive), 1), (upload, 1)]
        samples = measure(rows, ROUNDS, service.wait_until_idle)
    growth = Measurement(
        name="server's memory growth, 1 GiB sync",
        value=upload.memory_growth_bytes / 1024**2,
        unit="MiB",
        at_most=MEMORY_GROWTH_MIB_MAX,
    )
    bound = RatioBound(row=UploadSync.name, reference=DockerExecTar.name, factor=3)
    return Section(title="Upload of a 1 GiB tar", samples=samples, bounds=[bound], measurements=[growth])


@contextmanager
def large_archive(directory: Path) -> Iterator[Path]:
    """Create a tar with 1 GiB of incompressible data and a program; remove it at the end."""
    content, main, archive = directory / "content", directory / "main.py", directory / "large.tar"
    main.write_bytes(MAIN)
    block = os.urandom(BLOCK_BYTES)
    try:
        with content.open("wb") as output:
            for _ in range(CONTENT_BYTES // BLOCK_BYTES):
                output.write(block)
        with tarfile.open(archive, "w") as tar:
            tar.add(main, "main.py")
            tar.add(content, "content")
        content.unlink()
        yield archive
    finally:
        for file in (content, main, archive):
            file.unlink(missing_ok=True)


def _status_bytes(pid: int, name: str) -> int:
    """Read a memory field of /proc/PID/status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/{pid}/status has no {name}")
    return int(found[1]) * 1024
