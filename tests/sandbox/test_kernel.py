"""Test programs that attack the kernel, or read what a sandbox shows of the machine."""

from pyexec.settings import Settings
from tests.support.attack import COMPLETED, Attack, end_of

LIBC = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
zeros = ctypes.create_string_buffer(256)
"""
NUMBERS = {
    "x86_64": {"add_key": 248, "keyctl": 250, "request_key": 249, "bpf": 321, "perf_event_open": 298,
               "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246,
               "userfaultfd": 323, "open_by_handle_at": 304, "clone3": 435, "quotactl": 179, "acct": 163},
    "aarch64": {"add_key": 217, "keyctl": 219, "request_key": 218, "bpf": 280, "perf_event_open": 241,
                "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104,
                "userfaultfd": 282, "open_by_handle_at": 265, "clone3": 435, "quotactl": 60, "acct": 89},
}  # fmt: skip


CALLS = [
    "libc.mount(b'none', b'/work', b'tmpfs', 0, None)",
    "libc.mount(b'/', b'/work', None, 4096, None)",
    "libc.mount(None, b'/', None, 32, None)",
    "libc.umount2(b'/work', 2)",
    "libc.pivot_root(b'/work', b'/work')",
    "libc.chroot(b'/work')",
    "libc.unshare(0x10000000)",
    "libc.unshare(0x00020000)",
    "libc.unshare(0x40000000)",
    "libc.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0)",
    "libc.setuid(0)",
    "libc.setgid(0)",
    "libc.setresuid(0, 0, 0)",
    "libc.setgroups(0, None)",
    "libc.sethostname(b'mine', 4)",
    "libc.settimeofday(zeros, None)",
    "libc.clock_settime(0, zeros)",
    "libc.adjtimex(ctypes.create_string_buffer(b'\\xff' * 256))",
    "libc.reboot(0xfee1dead)",
    "libc.swapon(b'/work/main.py', 0)",
    "libc.klogctl(3, zeros, 256)",
    "libc.fanotify_init(0, 0)",
    "libc.mknod(b'/work/memory', 0o20666, os.makedev(1, 1))",
    "libc.mknod(b'/work/disk', 0o60666, os.makedev(254, 0))",
    "libc.syscall(number('add_key'), b'user', b'name', b'data', 4, -3)",
    "libc.syscall(number('keyctl'), 0, -3, 1)",
    "libc.syscall(number('request_key'), b'user', b'name', None, -3)",
    "libc.syscall(number('bpf'), 0, zeros, 72)",
    "libc.syscall(number('perf_event_open'), zeros, 0, -1, -1, 0)",
    "libc.syscall(number('init_module'), zeros, 256, b'')",
    "libc.syscall(number('finit_module'), 0, b'', 0)",
    "libc.syscall(number('delete_module'), b'loop', 0)",
    "libc.syscall(number('kexec_load'), 0, 0, None, 0)",
    "libc.syscall(number('userfaultfd'), 0)",
    "libc.syscall(number('open_by_handle_at'), 3, zeros, 0)",
    "libc.syscall(number('clone3'), zeros, 88)",
    "libc.syscall(number('quotactl'), 0x80000700, None, 0, zeros)",
    "libc.syscall(number('acct'), None)",
    "libc.syscall(425, 8, zeros)",
]


async def test_calls_that_no_program_needs_are_refused(attack: Attack) -> None:
    """Each call fails with EPERM, EACCES or ENOSYS, before the kernel reads the arguments."""
    source = f"""{LIBC}
number = {NUMBERS}[os.uname().machine].__getitem__
for call in {CALLS}:
    ctypes.set_errno(0)
    if eval(call) >= 0 or ctypes.get_errno() not in (1, 13, 38):
        print(call, ctypes.get_errno())
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "")


async def test_a_new_user_namespace_is_refused(attack: Attack) -> None:
    """Inside a user namespace, a program would have all capabilities and could reach most of the kernel."""
    source = "import subprocess; print(subprocess.run(['unshare', '-Ur', 'id', '-u'], capture_output=True))"
    result = await attack(source)
    assert "Operation not permitted" in result["stdout"]


async def test_a_program_has_no_capabilities(attack: Attack) -> None:
    source = """
import os
status = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
print([status[f'Cap{name}'] for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')])
print(status['NoNewPrivs'], status['Seccomp'])
print(*{*os.getresuid(), *os.getresgid(), *os.getgroups()})
"""
    sets, modes, ids = (await attack(source))["stdout"].splitlines()
    assert (sets, modes) == (str(["0" * 16] * 5), "1 2")
    assert int(ids) in Settings().sandbox_uids


async def test_setuid_programs_give_no_rights(attack: Attack) -> None:
    source = """
import os, stat, subprocess
found = 0
for directory, _, files in os.walk('/usr'):
    for name in files:
        path = os.path.join(directory, name)
        if os.lstat(path).st_mode & stat.S_ISUID:
            found += 1
shown = subprocess.run(['su', '-c', 'id -u'], stdin=subprocess.DEVNULL, capture_output=True, text=True)
print(found > 0, shown.returncode > 0, shown.stdout)
with open('own', 'wb') as file:
    file.write(open('/usr/bin/id', 'rb').read())
os.chmod('own', 0o6755)
print(subprocess.run(['./own', '-u'], capture_output=True, text=True).stdout)
"""
    first, own, rest = (await attack(source))["stdout"].split("\n", 2)
    assert (first, rest) == ("True True ", "\n")
    assert int(own) in Settings().sandbox_uids


KERNEL_FILES = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/irq/0/smp_affinity",
    "/proc/self/uid_map",
    "/proc/kcore",
    "/proc/bus/pci/devices",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/devices/devices.allow",
]


async def test_files_of_the_kernel_cannot_be_written(attack: Attack) -> None:
    source = f"""
for path in {KERNEL_FILES}:
    try:
        open(path, 'wb', buffering=0).write(b'1')
        print(path)
    except OSError:
        pass
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "")


async def test_files_of_the_kernel_tell_nothing(attack: Attack) -> None:
    source = """
for path in ('/proc/kcore', '/proc/kmsg', '/proc/keys', '/proc/locks', '/proc/sched_debug', '/dev/mem'):
    try:
        print(path * len(open(path, 'rb').read(100)))
    except OSError:
        print()
"""
    assert (await attack(source))["stdout"] == "\n" * 6


async def test_devices_are_the_harmless_ones(attack: Attack) -> None:
    source = """
import os, stat
names = [name for name in os.listdir('/dev') if os.path.exists(f'/dev/{name}')]
print(sorted(name for name in names if stat.S_ISBLK(os.stat(f'/dev/{name}').st_mode)
    or stat.S_ISCHR(os.stat(f'/dev/{name}').st_mode)))
"""
    harmless = {"full", "null", "random", "tty", "urandom", "zero", "stdin", "stdout", "stderr"}
    assert set(eval((await attack(source))["stdout"])) <= harmless


async def test_a_crash_leaves_no_core(attack: Attack) -> None:
    source = """
import os, resource
print(resource.getrlimit(resource.RLIMIT_CORE))
if os.fork() == 0:
    os.abort()
print(os.WCOREDUMP(os.wait()[1]), [name for name in os.listdir('/work') if 'core' in name])
"""
    assert (await attack(source))["stdout"] == "(1, 1)\nFalse []\n"


async def test_no_mount_is_of_the_machine(attack: Attack) -> None:
    """Only files that Docker or the server has generated are mounted; no other file comes from the machine."""
    source = """
for line in open('/proc/self/mountinfo'):
    before, after = line.split(' - ')
    kind = after.split()[0]
    if kind not in ('proc', 'sysfs', 'tmpfs', 'devpts', 'mqueue', 'cgroup', 'cgroup2', 'overlay'):
        print(before.split()[4])
"""
    found = set((await attack(source))["stdout"].split())
    assert found <= {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/etc/passwd", "/etc/group"}
