"""Test the limit of processor time (`config.cpu_seconds`): it counts all processes, and nothing hides time from it."""

import pytest

from tests.support.attack import COMPLETED, CPU_LIMIT, Attack, end_of
from tests.support.cases import sampled

LIMIT = {"cpu_seconds": 0.3}
ERROR = "the program used more than 0.3 s of processor time and was stopped"
BURNS = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
MANY = "import os\nfor _ in range(5): os.fork()\nwhile True: pass"
GONE = f"""
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        {BURNS.format(0.05).replace(chr(10), chr(10) + "        ")}
        os._exit(0)
    try:
        os.wait()
    except ChildProcessError:
        pass
"""
THREAD = "import threading, time\ndef spin():\n while True: pass\nthreading.Thread(target=spin).start()\ntime.sleep(60)"
KERNEL = "import os\nwhile True: os.urandom(1 << 20)"


@sampled(
    "source",
    [
        pytest.param("while True: pass", id="main process"),
        pytest.param(MANY, id="many processes"),
        pytest.param(GONE, id="processes that the kernel reaps"),
        pytest.param(THREAD, id="thread"),
        pytest.param(KERNEL, id="kernel"),
    ],
    every=3,
)
async def test_a_program_ends_at_its_limit_of_processor_time(attack: Attack, source: str) -> None:
    result = await attack("print('before', flush=True)\n" + source, config=LIMIT)
    assert (end_of(result), result["stdout"], result["error"]) == (CPU_LIMIT, "before\n", ERROR)
    assert result["duration_ms"] < 5000


async def test_a_program_that_ends_over_its_limit_has_exceeded_it(attack: Attack) -> None:
    result = await attack(BURNS.format(0.06), config={"cpu_seconds": 0.02})
    assert end_of(result) == CPU_LIMIT


async def test_waiting_takes_no_processor_time(attack: Attack) -> None:
    result = await attack("import time; time.sleep(1.5); print('slept')", config={"cpu_seconds": 0.5})
    assert (end_of(result), result["stdout"]) == (COMPLETED, "slept\n")


MANY_SOCKETS = """
import os, socket, time
started, signal = os.pipe()
for _ in range(3):
    if not os.fork():
        kept = []
        for _ in range(1000):
            kept.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            kept[-1].bind(('::1', 0))
        os.write(signal, b'1')
        time.sleep(60)
for _ in range(3):
    os.read(started, 1)
time.sleep(3)
print('slept')
"""


async def test_counting_sockets_takes_little_processor_time(attack: Attack) -> None:
    """At a small limit of disk space, the supervisor checks all limits 100 times a second. The server, which counts the
    supervisor, too, must not end the program."""
    result = await attack(MANY_SOCKETS, config={"cpu_seconds": 0.2, "disk_mb": 8})
    assert (end_of(result), result["stdout"]) == (COMPLETED, "slept\n"), result


async def test_output_of_the_last_moment_is_kept(attack: Attack) -> None:
    result = await attack("print('unfinished', end='')\nwhile True: pass", config=LIMIT)
    assert (end_of(result), result["stdout"]) == (CPU_LIMIT, "unfinished")
