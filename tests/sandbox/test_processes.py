"""Test programs that start many processes, hide them, or do not end."""

import pytest

from tests.support.attack import BRIEF, COMPLETED, PROCESS_LIMIT, TIMEOUT, Attack, end_of, processes_with
from tests.support.cases import sampled

FORKS = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
FORKS_IN_SESSIONS = """
import os
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""
ORPHANS = """
import os
while True:
    try:
        child = os.fork()
        if child == 0:
            try:
                os.fork()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    except OSError:
        pass
"""
NEVER_WAITS = """
import os
while True:
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        pass
"""
REACHED = "reached the limit of 64 processes and threads"
BUSY = "while True: pass"
BUSY_EVERYWHERE = "import os\nfor _ in range(5): os.fork()\nwhile True: pass"
SLEEPS = "import time; time.sleep(3600)"
READS = "import os; r, w = os.pipe(); os.read(r, 1)"
IGNORES_SIGNALS = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    time.sleep(3600)
"""
STOPS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
STOPS_ALL = """
import os, signal
if os.fork() == 0:
    while True:
        os.kill(-1, signal.SIGSTOP)
signal.pause()
"""
IS_TRACED = """
import ctypes, os, signal
ctypes.CDLL(None).ptrace(0, 0, 0, 0)
os.kill(os.getpid(), signal.SIGSTOP)
"""
LEADER_LEAVES = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@sampled(
    "source",
    [
        pytest.param(ORPHANS, id="leaves orphans"),
        pytest.param(BUSY, id="is busy"),
        pytest.param(BUSY_EVERYWHERE, id="is busy everywhere"),
        pytest.param(SLEEPS, id="sleeps"),
        pytest.param(READS, id="blocks in a read"),
        pytest.param(IGNORES_SIGNALS, id="ignores signals"),
        pytest.param(STOPS_ITSELF, id="stops itself"),
        pytest.param(STOPS_ALL, id="stops all"),
        pytest.param(IS_TRACED, id="asks to be traced"),
        pytest.param(LEADER_LEAVES, id="goes on without its first thread"),
    ],
    every=3,
)
async def test_a_program_that_does_not_end_times_out(attack: Attack, source: str) -> None:
    result = await attack("print('before', flush=True)\n" + source, config=BRIEF)
    assert (end_of(result), result["stdout"]) == (TIMEOUT, "before\n")
    error = result["error"].removesuffix(f"; it {REACHED}")  # orphans reach it if they are reaped late
    assert error == "the program ran longer than 1 s and was stopped"


THREADS = """
import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError:
        pass
"""


@sampled(
    "source",
    [
        pytest.param(FORKS, id="forks"),
        pytest.param(FORKS_IN_SESSIONS, id="forks in sessions of their own"),
        pytest.param(NEVER_WAITS, id="never waits"),
        pytest.param(THREADS, id="starts threads"),
    ],
)
async def test_a_bomb_ends_at_the_limit_of_processes(attack: Attack, source: str) -> None:
    result = await attack("print('before', flush=True)\n" + source, config={"timeout_seconds": 10})
    assert (end_of(result), result["stdout"]) == (PROCESS_LIMIT, "before\n")
    assert result["error"] == (
        f"the program kept starting processes or threads at its limit (PYEXEC_PIDS_MAX) and was stopped; it {REACHED}"
    )


STARTS_TOO_MANY = """
import os, threading, time
try:
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
"""


@sampled(
    ("then", "end", "error"),
    [
        ("raise", ("completed", "RuntimeError", 1), f"can't start new thread (the program {REACHED})"),
        ("os._exit(3)", ("completed", None, 3), f"the program {REACHED}"),
        ("time.sleep(60)", TIMEOUT, f"the program ran longer than 5 s and was stopped; it {REACHED}"),
    ],
    every=3,
)
async def test_a_failure_names_the_limit_that_was_reached(
    attack: Attack, then: str, end: tuple[str, str | None, int], error: str
) -> None:
    result = await attack(f"{STARTS_TOO_MANY} {then}", config={"timeout_seconds": 5})
    assert (end_of(result), result["error"]) == (end, error)


@sampled("how", ["thread", "process"], every=2)
async def test_the_number_of_processes_is_limited(attack: Attack, how: str) -> None:
    source = """
import os, sys, threading, time
made = 0
try:
    while made < 1000:
        if sys.argv[1] == 'thread':
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        elif os.fork() == 0:
            time.sleep(60)
        made += 1
except (RuntimeError, BlockingIOError):
    print(made, flush=True)
os._exit(0)
"""
    result = await attack(source, script_args=[how])
    assert (end_of(result), "error" in result) == (COMPLETED, False)
    assert 48 <= int(result["stdout"]) < 64


HIDES = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.environ.clear()
for number in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
while True:
    time.sleep(0.01)
    os.fork()
"""
SETS_TIMERS = """
import signal
for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
    signal.setitimer(timer, 0.2, 0.2)
"""


@pytest.mark.used_once
@pytest.mark.parametrize("source", [pytest.param(HIDES, id="daemon"), pytest.param(SETS_TIMERS, id="timers")])
async def test_daemons_and_timers_do_not_outlive_the_program(attack: Attack, source: str) -> None:
    assert end_of(await attack(source)) == COMPLETED


@pytest.mark.used_once
async def test_a_kill_ends_all_processes_of_a_program(attack: Attack) -> None:
    """This also proves that the other tests, which use the same mark, would find remaining processes."""
    execution_id = await attack.api.accepted(
        f'import os, signal\nopen("{attack.mark}", "w").close()\nos.fork()\nos.write(1, b"up")\nsignal.pause()'
    )
    await attack.api.until_printed(execution_id, b"upup")
    assert len(processes_with(attack.mark)) == 3  # the supervisor is the third
    assert (await attack.api.kill(execution_id)).document == {"status": "killed"}
