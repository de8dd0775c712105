"""What there is to beat: the image's python3 alone, and `docker run --rm` of it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.samples import timed

LABEL = "pyexec.bench=1"
HELLO = b'print("hello")\n'
DOCKER_RUN = ("docker", "run", "--rm", "--label", LABEL)

LOOP = """\
import os, sys, time
with open("/tmp/hello.py", "wb") as file:
    file.write(bytes.fromhex(sys.argv[1]))
while sys.stdin.readline():
    output, end = os.pipe()
    start = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, end, 1), (os.POSIX_SPAWN_CLOSE, output)]
    process = os.posix_spawn(sys.executable, ["python3", "/tmp/hello.py"], os.environ, file_actions=actions)
    os.close(end)
    printed = b""
    while data := os.read(output, 4096):
        printed += data
    _, status = os.waitpid(process, 0)
    seconds = time.perf_counter() - start
    os.close(output)
    print(seconds if printed == sys.argv[2].encode() and status == 0 else "wrong", flush=True)
"""
"""Runs the program once for each line it reads, and says how long it took from the spawn to the end of the process."""


class BarePython:
    """A program under `python3` in the image's own root: spawned, timed and reaped there, without Docker."""

    name = "bare python3"

    def __init__(self, loop: "subprocess.Popen[str]", name: str = name) -> None:
        self._loop = loop
        self.name = name

    def run(self) -> float:
        if self._loop.stdin is None or self._loop.stdout is None:
            raise RuntimeError("the loop has no pipes")
        self._loop.stdin.write("\n")
        self._loop.stdin.flush()
        line = self._loop.stdout.readline().strip()
        try:
            return float(line)
        except ValueError as error:
            raise RuntimeError(f"bare python3 did not print what it should: {line!r}") from error


@contextmanager
def bare_python(
    image: str, program: bytes = HELLO, prints: str = "hello\n", name: str = BarePython.name
) -> Iterator[BarePython]:
    """The row, with its container around it."""
    command = [*DOCKER_RUN, "-i", "--network", "none", image, "python3", "-c", LOOP, program.hex(), prints]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loop:
        try:
            yield BarePython(loop, name)
        finally:
            if loop.stdin is not None:
                loop.stdin.close()


class DockerRun:
    """`docker run --rm IMAGE python3 -c …`, from the command's start to its end."""

    name = "docker run --rm"

    def __init__(self, image: str) -> None:
        self._command = [*DOCKER_RUN, image, "python3", "-c", HELLO.decode()]

    def run(self) -> float:
        with timed() as watch:
            done = subprocess.run(self._command, capture_output=True, check=False)
        if done.stdout != b"hello\n":
            raise RuntimeError(f"docker run did not print hello: {done.stderr.decode()}")
        return watch.seconds
