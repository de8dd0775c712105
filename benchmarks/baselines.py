"""Baselines to compare the service with: `python3` in the image, and `docker run --rm` of the image."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.timing import timed

LABEL = "pyexec.bench=1"
HELLO = b'print("hello")\n'
DOCKER_RUN = ("docker", "run", "--rm", "--label", LABEL)

SPAWN_LOOP = """\
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
"""Runs the program once per input line and prints the seconds from spawn to exit."""


class BarePython:
    """A program under `python3` inside a container of the image: spawned, timed and reaped there, without Docker."""

    name = "bare python3"

    def __init__(self, loop: "subprocess.Popen[str]", name: str = name) -> None:
        self._loop = loop
        self.name = name

    def run(self) -> float:
        if self._loop.stdin is None or self._loop.stdout is None:
            raise RuntimeError("the spawn loop has no pipes")
        self._loop.stdin.write("\n")
        self._loop.stdin.flush()
        line = self._loop.stdout.readline().strip()
        try:
            return float(line)
        except ValueError as error:
            raise RuntimeError(f"bare python3 printed unexpected output: {line!r}") from error


@contextmanager
def bare_python(
    image: str, program: bytes = HELLO, expected_output: str = "hello\n", name: str = BarePython.name
) -> Iterator[BarePython]:
    """Start a container with the spawn loop; yield the row that uses it."""
    loop_arguments = ["python3", "-c", SPAWN_LOOP, program.hex(), expected_output]
    command = [*DOCKER_RUN, "-i", "--network", "none", image, *loop_arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loop:
        try:
            yield BarePython(loop, name)
        finally:
            if loop.stdin is not None:
                loop.stdin.close()


class DockerRun:
    """`docker run --rm IMAGE python3 -c …`, timed from the start of the command to its end."""

    name = "docker run --rm"

    def __init__(self, image: str) -> None:
        self._command = [*DOCKER_RUN, image, "python3", "-c", HELLO.decode()]

    def run(self) -> float:
        with timed() as watch:
            done = subprocess.run(self._command, capture_output=True, check=False)
        if done.stdout != b"hello\n":
            raise RuntimeError(f"docker run did not print hello: {done.stderr.decode()}")
        return watch.seconds
