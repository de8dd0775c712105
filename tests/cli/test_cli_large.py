"""Test large inputs: constant memory, spooling to disk, and the progress bar."""

import os
import subprocess

import pytest
from attrs import evolve

from tests.support.canned import Request, canned
from tests.support.cases import sampled

ENDED = {"execution_id": "exe_1", "status": "completed", "exit_code": 0, "stdout": "", "stderr": ""}
SUBMITTED = ("submitted", {"execution_id": "exe_1", "seq": 1, "type": "submitted"})


def highest_memory(process: int) -> int:
    """Return the peak memory of a process in bytes."""
    with open(f"/proc/{process}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@sampled("size", [200_000_000, 600_000_000])
def test_a_large_directory_takes_constant_memory(lone_program, size):
    lone_program.file("project/main.py", "print(1)")
    with lone_program.file("project/data.bin").open("wb") as file:
        file.truncate(size)
    seen = []

    def answer(request: Request) -> None:
        _, total = request.body()
        seen.append((total, highest_memory(process.pid)))
        request.say_events(SUBMITTED, ("finished", ENDED))

    with canned(answer) as url, lone_program.started("project", "--server", url) as process:
        assert process.wait() == 0, process.stderr.read()
    ((total, memory),) = seen
    assert total > size
    assert memory < 100_000_000


def test_large_standard_input_is_stored_on_disk(lone_program):
    piece, count = b"#" * 999_999 + b"\n", 510
    seen = []

    def answer(request: Request) -> None:
        seen.append(request.body()[1])
        request.say_events(SUBMITTED, ("finished", ENDED))

    with (
        canned(answer) as url,
        lone_program.started("run", "--server", url, stdin=subprocess.PIPE) as process,
    ):
        for _ in range(count):
            left = memoryview(piece)
            while left:
                left = left[process.stdin.write(left) :]
        # The program has read everything by now, except for what the pipe holds.
        folder = f"/proc/{process.pid}/fd"
        sizes = [os.stat(f"{folder}/{number}").st_size for number in os.listdir(folder)]
        assert max(sizes) > 500_000_000
        process.stdin.close()
        assert process.wait() == 0, process.stderr.read()
    assert seen[0] > 510_000_000


@pytest.mark.parametrize("flags", [(), ("-q",), ("-v",)])
def test_progress_bar_only_on_a_terminal(lone_program, flags):
    lone_program.file("main.py", b"#" * 9_000_000)

    def answer(request: Request) -> None:
        request.body()
        request.say_events(SUBMITTED, ("finished", ENDED))

    with canned(answer) as url:
        program = evolve(lone_program, server=url)
        screen = program.on_a_terminal(*flags, "main.py")
        assert (b"sending 100% [##############################] 9.0/9.0 MB" in screen) == (flags == ())
        assert (b"sending" in screen) == (flags == ())
        assert program.run("main.py", *flags).stderr == (
            b"python-executor: exe_1 submitted\n" if flags == ("-v",) else b""
        )
        small = program.file("small.py", b"#" * 7_000_000)
        assert b"sending" not in program.on_a_terminal(str(small))
