"""Test programs that exceed their memory limit, with every kind of memory that the kernel has."""

import pytest

from tests.support.attack import BRIEF, OUT_OF_MEMORY, Attack, end_of
from tests.support.cases import sampled

SLOWLY = """
import time
kept = []
while True:
    kept.append(bytearray(b'x') * (4 << 20))
    time.sleep(0.02)
"""
AT_ONCE = """
import mmap
POPULATED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000
kept = [mmap.mmap(-1, 64 << 20, flags=POPULATED) for _ in range(64)]
"""
IN_CHILDREN = """
import subprocess, sys
hungry = 'x = bytearray(b"x") * (40 << 20); import time; time.sleep(60)'
children = [subprocess.Popen([sys.executable, '-c', hungry]) for _ in range(4)]
children[0].wait()
"""
FAST_CHILDREN = """
import mmap, os, time
for _ in range(8):
    if os.fork() == 0:
        kept = [mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000) for _ in range(16)]
        os._exit(0)
for _ in range(8):
    os.wait()
"""
IN_DEV_SHM = """
import time
with open('/dev/shm/big', 'wb') as file:
    for _ in range(200):
        file.write(bytes(1 << 20))
        file.flush()
time.sleep(60)
"""
IN_A_FILE_WITHOUT_A_NAME = """
import os, time
file = os.memfd_create('big')
for _ in range(200):
    os.write(file, bytes(1 << 20))
time.sleep(60)
"""
IN_SYSTEM_V = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, ctypes.c_size_t(200 << 20), 0o1600)
ctypes.memset(ctypes.c_void_p(libc.shmat(segment, None, 0)), 1, 200 << 20)
time.sleep(60)
"""
IN_PIPES = """
import os, time
for _ in range(4):
    os.fork()  # a process may open 1024 files
for _ in range(500):
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, bytes(65536))
    except BlockingIOError:
        pass
time.sleep(60)
"""
IN_SOCKETS = """
import socket
kept = []
while True:
    pair = socket.socketpair()
    kept.append(pair)
    pair[0].setblocking(False)
    try:
        while True:
            pair[0].send(bytes(65536))
    except BlockingIOError:
        pass
"""
IN_PAGE_TABLES = """
import mmap
size = 1 << 42
space = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
for address in range(0, size, 1 << 21):
    space[address]
"""


@sampled(
    "source",
    [
        pytest.param(SLOWLY, id="slowly"),
        pytest.param(AT_ONCE, id="at once"),
        pytest.param(IN_CHILDREN, id="in children"),
        pytest.param(FAST_CHILDREN, id="in fast children"),
        pytest.param(IN_DEV_SHM, id="in /dev/shm"),
        pytest.param(IN_A_FILE_WITHOUT_A_NAME, id="in a memfd"),
        pytest.param(IN_SYSTEM_V, id="in System V segments"),
        pytest.param(IN_PIPES, id="in pipes"),
        pytest.param(IN_SOCKETS, id="in sockets"),
        pytest.param(IN_PAGE_TABLES, id="in page tables"),
    ],
    every=3,
)
async def test_a_memory_bomb_is_out_of_memory(attack: Attack, source: str) -> None:
    result = await attack("print('before', flush=True)\n" + source)
    assert (end_of(result), result["stdout"]) == (OUT_OF_MEMORY, "before\n")
    assert result["error"] == "the program used more than 64 MiB of memory and was stopped"


async def test_an_oom_kill_of_a_child_fails_the_run(attack: Attack) -> None:
    """The parent may survive and exit with 0, but the run has exceeded its memory limit."""
    child = "import mmap; mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000)"
    result = await attack(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    assert end_of(result) == OUT_OF_MEMORY


KILLED_REPEATEDLY = """
import os, socket
def read(*names):
    return next(int(open(name).read()) for name in names if os.path.exists(name))
os.chdir('/sys/fs/cgroup')
limit = read('memory/memory.limit_in_bytes', 'memory.max')
pairs = []
while read('memory/memory.usage_in_bytes', 'memory.current') < limit - (24 << 20):
    pairs.append(socket.socketpair())
    for end in pairs[-1]:
        end.setblocking(False)
        try:
            while True: end.send(bytes(65536))
        except BlockingIOError: pass
for number in range(100):
    if os.fork() == 0:
        b'x' * (40 << 20)
        os._exit(0)
    os.wait()
    print(number, flush=True)
"""


async def test_a_program_ends_if_the_kernel_kills_its_processes_repeatedly(attack: Attack) -> None:
    """Each kill takes space in the machine's log. Memory of the kernel leaves less than `memory_mb`.

    Rarely, the kernel kills the parent, too, and then the program ends earlier."""
    result = await attack(KILLED_REPEATEDLY)
    assert end_of(result) == OUT_OF_MEMORY
    assert len(result["stdout"].splitlines()) < 50


async def test_reserved_address_space_does_not_count_as_memory(attack: Attack) -> None:
    result = await attack(
        "import mmap; mmap.mmap(-1, 1 << 36, flags=mmap.MAP_PRIVATE | 0x4020); print('fine')"
    )
    assert (result["status"], result["stdout"]) == ("completed", "fine\n")
    assert result["usage"]["peak_memory_bytes"] < 64 << 20


async def test_pages_cannot_be_locked_into_memory(attack: Attack) -> None:
    source = """
import ctypes, mmap
space = mmap.mmap(-1, 48 << 20)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.mlockall(3))
"""
    result = await attack(source, config=BRIEF)
    assert (result["status"], result["stdout"]) == ("completed", "-1\n")


async def test_a_supervisor_killed_for_lack_of_memory_is_out_of_memory(attack: Attack) -> None:
    """The program makes itself the last choice of the kernel, and fills memory that counts for no process."""
    source = """
import os, time
open('/proc/self/oom_score_adj', 'w').write('0')
kept = []
for _ in range(40):
    try:
        if os.fork() == 0: break
    except OSError:
        break
while True:
    try:
        read, write = os.pipe()
        os.set_blocking(write, False)
        while True: os.write(write, bytes(65536))
    except BlockingIOError:
        pass
    except OSError:
        time.sleep(0.01)
"""
    assert end_of(await attack(source)) == OUT_OF_MEMORY
