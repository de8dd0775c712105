"""Test that output is line-buffered: lines are whole, and a program that ends in any way loses no complete line."""

import re
from collections.abc import AsyncIterator

import pytest

from tests.support.api import Api, api_of
from tests.support.attack import COMPLETED, DISK_LIMIT, OUT_OF_MEMORY, TIMEOUT, end_of
from tests.support.cases import sampled
from tests.support.server import Server

LINES = """
import multiprocessing, threading
def show(number):
    for index in range(2000): print(number, 'a line of', index, 'pieces', sep=', ')
parts = [{kind}(target=show, args=(number,)) for number in range(8)]
for part in parts: part.start()
for part in parts: part.join()
"""
FILL_MEMORY_SLOWLY = "import time\nheld = []\nwhile True: held.append(bytearray(1 << 20)); time.sleep(0.02)"
"""Reaches the limit that the supervisor measures. A faster program is killed by the kernel on a busy machine."""
LINE = re.compile(r"\d, a line of, \d+, pieces")


def _timeout(end: tuple[str, str | None, int]) -> int:
    """Return a timeout in seconds. On a busy machine, a program needs seconds to reach another limit."""
    return 1 if end == TIMEOUT else 20


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with api_of(server.url) as client:
        yield client


@pytest.mark.parametrize("kind", ["threading.Thread", "multiprocessing.get_context('fork').Process"])
async def test_lines_of_threads_and_processes_are_whole(api: Api, kind: str) -> None:
    result = await api.run(LINES.format(kind=kind))
    lines = result["stdout"].splitlines()
    assert (len(lines), [line for line in lines if not LINE.fullmatch(line)]) == (16_000, [])


@sampled(
    ("source", "end"),
    [
        ("import time\ntime.sleep(60)", TIMEOUT),
        ("import os\nos._exit(0)", COMPLETED),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", ("completed", None, 137)),
        ("import os\nos.execv('/bin/true', ['true'])", COMPLETED),
        ("held = []\nwhile True: held.append(bytearray(1 << 20))", OUT_OF_MEMORY),
    ],
    every=3,
)
async def test_no_complete_line_is_lost(api: Api, source: str, end: tuple[str, str | None, int]) -> None:
    config = {"timeout_seconds": _timeout(end), "memory_mb": 64}
    result = await api.run(f"import sys\nprint(1)\nprint(2, file=sys.stderr)\n{source}", config=config)
    assert (end_of(result), result["stdout"], result["stderr"]) == (end, "1\n", "2\n")


@sampled(
    ("source", "end"),
    [
        ("while True: pass", TIMEOUT),
        ("import os, time\nos.fork()\ntime.sleep(60)", TIMEOUT),
        (FILL_MEMORY_SLOWLY, OUT_OF_MEMORY),
        (
            "open('big', 'wb').write(bytes(10 << 20)); open('/tmp/big', 'wb').write(bytes(10 << 20))\nwhile True: pass",
            DISK_LIMIT,
        ),
    ],
    every=2,
)
async def test_no_unfinished_line_is_lost_at_a_limit(
    api: Api, source: str, end: tuple[str, str | None, int]
) -> None:
    config = {"timeout_seconds": _timeout(end), "memory_mb": 64, "disk_mb": 16}
    unfinished = "import sys\nprint('a', end='')\nsys.stderr.write('b')\n"
    result = await api.run(unfinished + source, config=config)
    assert (end_of(result), result["stdout"], result["stderr"]) == (end, "a", "b")


async def test_an_unfinished_line_beyond_the_output_limit_is_not_lost_silently(api: Api) -> None:
    almost_all = f"import sys\nprint('x' * ({10 << 20} - 101), flush=True)\n"
    until_memory_is_full = f"sys.stdout.write('y' * 4000)\n{FILL_MEMORY_SLOWLY}"
    config = {"timeout_seconds": 60, "memory_mb": 128}  # a busy machine needs seconds for ten megabytes
    result = await api.run(almost_all + until_memory_is_full, config=config)
    assert (result["error_type"], result["truncated"]["stdout"]) == ("output_limit", True)
    assert len(result["stdout"]) == 10 << 20


async def test_no_unfinished_line_is_lost_if_the_program_is_busy_at_the_limit(api: Api) -> None:
    """The main thread is in C code, which no signal interrupts, until the signal to flush has arrived."""
    source = """
import ctypes, os, signal, threading, time
print('a', end='')
arrived, arrives = os.pipe()
os.set_blocking(arrives, False)
signal.set_wakeup_fd(arrives)
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
threading.Thread(target=lambda: (os.read(arrived, 1), libc.pthread_mutex_unlock(mutex))).start()
libc.pthread_mutex_lock(mutex)
time.sleep(60)
"""
    result = await api.run(source, config={"timeout_seconds": 1})
    assert (end_of(result), result["stdout"]) == (TIMEOUT, "a")


async def test_a_program_notices_nothing_of_its_limit(api: Api) -> None:
    source = "import subprocess\nprint('a', end='')\nsubprocess.run(['sleep', '60'], check=True)"
    result = await api.run(source, config={"timeout_seconds": 1})
    assert (end_of(result), result["stdout"], result["stderr"]) == (TIMEOUT, "a", "")


@sampled(
    "source",
    [
        pytest.param(
            "import time\nwhile True: print('x', flush=True); time.sleep(0.005)", id="prints all the time"
        ),
        pytest.param("while True: print(end='x')", id="prints without a newline"),
        pytest.param("import os\nos.execv('/bin/sleep', ['sleep', '60'])", id="leaves its input unread"),
        pytest.param("import os, time\nos.close(0)\ntime.sleep(60)", id="closes its input"),
        pytest.param(
            "import os\nwhile True:\n if os.fork() == 0: os._exit(0)\n os.wait()",
            id="starts processes all the time",
        ),
    ],
    every=3,
)
async def test_the_supervisor_reports_every_timeout(api: Api, source: str) -> None:
    """Only the supervisor knows the usage. If it is too late, the server ends the run without it."""
    result = await api.run(source, config={"timeout_seconds": 1}, stdin="x" * 1_000_000)
    assert (end_of(result), "usage" in result) == (TIMEOUT, True)


async def test_a_forked_process_does_not_print_an_unfinished_line_again(api: Api) -> None:
    source = (
        "import os\nprint('once', end=' ')\nif os.fork(): os.wait(); print('parent')\nelse: print('child')"
    )
    assert (await api.run(source))["stdout"] == "once child\nparent\n"


async def test_an_unfinished_line_can_be_flushed(api: Api) -> None:
    source = "import os\nprint('x', end='', flush=True)\nos._exit(0)"
    assert (await api.run(source))["stdout"] == "x"


async def test_a_python_process_of_the_program_keeps_nothing_back(api: Api) -> None:
    source = (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import os; print(1, end=\"\"); os._exit(0)'])\n"
        "print(os.environ['PYTHONUNBUFFERED'])"
    )
    assert (await api.run(source))["stdout"] == "11\n"


@pytest.mark.parametrize(("value", "expected"), [("1", "x(False, True)"), ("", "(False, False)")])
async def test_a_request_can_choose_for_itself(api: Api, value: str, expected: str) -> None:
    source = (
        "import os, sys\nprint('x', end='')\nstate = sys.stdout.line_buffering, sys.stdout.write_through\n"
        "os.write(1, repr(state).encode())\nos._exit(0)"
    )
    assert (await api.run(source, env_vars=[f"PYTHONUNBUFFERED={value}"]))["stdout"] == expected


@sampled("rest", ["time.sleep(60)", "while True: pass"], every=2)
async def test_no_unfinished_line_is_lost_at_a_kill_request(api: Api, rest: str) -> None:
    source = f"import sys, time\nprint('ready')\nprint('a', end='')\nsys.stderr.write('b')\n{rest}"
    execution_id = await api.accepted(source)
    await api.until_printed(execution_id, b"ready\n")
    await api.kill(execution_id)
    result = await api.ended(execution_id)
    assert (result["status"], result["stdout"], result["stderr"]) == ("killed", "ready\na", "b")
    assert "usage" in result
