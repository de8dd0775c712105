"""Test two programs at the same time and one after the other: neither can observe the other."""

import asyncio
import secrets

import pytest

from tests.support.attack import COMPLETED, Attack, end_of
from tests.support.cases import sampled

pytestmark = pytest.mark.used_once

LEAVES = """
import ctypes, os, socket, sys, time
secret = sys.argv[1]
for place in ('/work', '/tmp', '/dev/shm', '/dev/mqueue', '/var/tmp', '/run', '/'):
    try:
        open(f'{place}/{secret}', 'w').write(secret)
    except OSError:
        pass
libc = ctypes.CDLL(None)
libc.shmget(0x5EC12E7, ctypes.c_size_t(4096), 0o1666)
libc.msgget(0x5EC12E7, 0o1666)
libc.semget(0x5EC12E7, 1, 0o1666)
name = socket.socket(socket.AF_UNIX)
name.bind('\\0' + secret)
os.environ['SECRET'] = secret
for mark in sys.argv[3:]:
    open(mark, 'w').close()
print('left', flush=True)
time.sleep(float(sys.argv[2]))
"""
SEARCHES = """
import ctypes, os, sys
found = []
own = {str(os.getpid()), '1'}
for directory, names, files in os.walk('/'):
    if directory == '/proc':
        names[:] = []
    found += [name for name in names + files if sys.argv[1] in name]
found += [pid for pid in os.listdir('/proc') if pid.isdigit() and pid not in own]
libc = ctypes.CDLL(None)
found += [kind for kind, id in (
    ('shm', libc.shmget(0x5EC12E7, ctypes.c_size_t(0), 0)),
    ('msg', libc.msgget(0x5EC12E7, 0)),
    ('sem', libc.semget(0x5EC12E7, 0, 0)),
) if id >= 0]
found += [line for line in open('/proc/net/unix') if sys.argv[1] in line]
for place in ('/proc/keys', '/proc/timer_list', '/proc/sched_debug', '/proc/kmsg', '/proc/1/environ'):
    try:
        found += [place] * (sys.argv[1] in open(place).read())
    except OSError:
        pass
print(found)
"""


async def test_a_run_finds_no_traces_of_an_earlier_run(attack: Attack) -> None:
    secret = secrets.token_hex(8)
    assert (await attack(LEAVES, script_args=[secret, "0"]))["stdout"] == "left\n"
    result = await attack(SEARCHES, script_args=[secret[:-1]])
    assert (end_of(result), result["stdout"]) == (COMPLETED, "[]\n")


async def test_a_run_finds_no_traces_of_a_concurrent_run(attack: Attack) -> None:
    secret = secrets.token_hex(8)
    execution_id = await attack.api.accepted(LEAVES, script_args=[secret, "60", attack.mark])
    await attack.api.until_printed(execution_id, b"left\n")
    result = await attack(SEARCHES, script_args=[secret[:-1]])
    assert (end_of(result), result["stdout"]) == (COMPLETED, "[]\n")
    assert (await attack.api.kill(execution_id)).document == {"status": "killed"}


KILLS = """
import os
for pid in range(2, 70000):
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass
"""


async def test_signals_do_not_reach_other_runs(attack: Attack) -> None:
    spared, _ = await asyncio.gather(attack("import time; time.sleep(1); print('spared')"), attack(KILLS))
    assert (end_of(spared), spared["stdout"]) == (COMPLETED, "spared\n")


@sampled(
    "greedy",
    [
        pytest.param("import os\nfor _ in range(5): os.fork()\nwhile True: pass", id="processor"),
        pytest.param("import os\nwhile True:\n try: os.fork()\n except OSError: pass", id="processes"),
        pytest.param("kept = []\nwhile True: kept.append(bytearray(1 << 20))", id="memory"),
        pytest.param("import os\nwhile True: os.write(1, b'x')", id="output"),
    ],
    every=4,
)
async def test_a_greedy_run_does_not_starve_other_runs(attack: Attack, greedy: str) -> None:
    modest = "import hashlib; print(hashlib.sha256(bytes(1 << 24)).hexdigest()[:8])"
    _, result = await asyncio.gather(attack(greedy, config={"timeout_seconds": 2}), attack(modest))
    assert (end_of(result), result["stdout"]) == (COMPLETED, "080acf35\n")
