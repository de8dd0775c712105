"""Test programs that attack their supervisor, which runs as the same user: it always reports their end."""

from tests.support.attack import BRIEF, COMPLETED, TIMEOUT, Attack, end_of
from tests.support.cases import sampled

REFUSED = "refused\n"


async def test_a_program_cannot_lower_the_limits_of_the_supervisor(attack: Attack) -> None:
    source = """
import resource, time
for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_CPU):
    try:
        resource.prlimit(1, limit, (0, 0))
        print('lowered', flush=True)
    except PermissionError:
        print('refused')
time.sleep(0.2)
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, REFUSED * 4)


async def test_a_program_cannot_slow_down_the_supervisor(attack: Attack) -> None:
    source = """
import os
for slow_down in (
    lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    lambda: os.setpriority(os.PRIO_PGRP, 1, 19),
    lambda: os.setpriority(os.PRIO_USER, 0, 19),
    lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    lambda: os.sched_setparam(1, os.sched_param(0)),
    lambda: os.sched_setaffinity(1, {0}),
):
    try:
        slow_down()
        print('slowed down')
    except PermissionError:
        print('refused')
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, REFUSED * 6)


async def test_a_program_may_lower_its_own_limits_and_priority(attack: Attack) -> None:
    source = """
import os, resource, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
resource.prlimit(os.getpid(), resource.RLIMIT_CPU, (5, 5))
os.nice(1)
os.sched_setaffinity(threading.get_native_id(), os.sched_getaffinity(0))
os.setpriority(os.PRIO_PROCESS, os.getpid(), 2)
print(resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0))
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "(64, 64) 2\n")


@sampled("signals", ["range(1, 65)", "(14,)", "(17,)", "(9, 19, 24)"])
async def test_signals_do_not_delay_the_deadline(attack: Attack, signals: str) -> None:
    source = f"""
import os
for _ in range(2):
    os.fork()
while True:
    for number in {signals}:
        try:
            os.kill(1, number)
        except OSError:
            pass
"""
    assert end_of(await attack(source, config=BRIEF)) == TIMEOUT


async def test_no_signal_of_the_program_ends_the_supervisor(attack: Attack) -> None:
    source = """
import os
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
print('on')
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "on\n")


CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(64)
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
here, there = Vector(ctypes.addressof(buffer), 64), Vector(0x400000, 64)
pidfd = os.pidfd_open(1)
"""


async def test_memory_and_descriptors_of_the_supervisor_are_inaccessible(attack: Attack) -> None:
    source = f"""{CALLS}
for call in (
    lambda: libc.ptrace(16, 1, 0, 0),
    lambda: libc.ptrace(0x4206, 1, 0, 0),
    lambda: libc.process_vm_readv(1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0),
    lambda: libc.process_vm_writev(1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0),
    lambda: libc.syscall(438, pidfd, 1, 0),
    lambda: libc.syscall(440, pidfd, ctypes.byref(there), 1, 4, 0),
):
    print('refused' if call() < 0 and ctypes.get_errno() in (1, 13, 38) else 'reached')
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, REFUSED * 6)


async def test_proc_files_of_the_supervisor_are_inaccessible(attack: Attack) -> None:
    source = """
import os
SECRET = ('mem', 'environ', 'maps', 'fd', 'fd/0', 'fd/1', 'task/1/fd/1', 'root', 'cwd', 'exe', 'syscall', 'stack')
STATE = ('oom_score_adj', 'oom_adj', 'comm', 'timerslack_ns', 'clear_refs', 'coredump_filter', 'autogroup')
def tried(name, opening, act):
    try:
        file = os.open(f'/proc/1/{name}', opening)
        if not os.path.isdir(f'/proc/1/{name}'):
            act(file)
        print(name)
    except OSError:
        pass
for name in SECRET:
    tried(name, os.O_RDONLY, lambda file: os.read(file, 1))
for name in SECRET + STATE:
    tried(name, os.O_WRONLY, lambda file: os.write(file, b'1'))
print('refused')
"""
    assert (await attack(source))["stdout"] == REFUSED


async def test_the_program_inherits_only_the_standard_descriptors(attack: Attack) -> None:
    source = """
import os
for number in range(3, 1024):
    try:
        os.fstat(number)
        print(number)
    except OSError:
        pass
"""
    assert (await attack(source))["stdout"] == ""


async def test_a_program_cannot_lower_its_oom_score(attack: Attack) -> None:
    source = """
for score in ('-1000', '0', '999'):
    try:
        with open('/proc/self/oom_score_adj', 'w') as file:
            file.write(score)
    except OSError:
        print('refused')
print(open('/proc/self/oom_score_adj').read(), end='')
"""
    result = await attack(source)
    assert int(result["stdout"].split()[-1]) >= 0
    assert "refused" in result["stdout"]
