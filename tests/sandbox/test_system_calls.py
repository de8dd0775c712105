"""Test programs that make system calls, or pass arguments, that no program needs: the filter refuses them."""

import errno
import json
import shlex

import anyio
import pytest

from tests.support.attack import COMPLETED, POOL, Attack, end_of
from tests.support.containers import deployment_of, until_containers

TRY = """
import ctypes, errno, fcntl, mmap, os, resource, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
zeros = ctypes.create_string_buffer(256)
x86 = os.uname().machine == 'x86_64'
def call(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), 'failed')
def system(on_x86, on_arm, *arguments):
    call(libc.syscall, on_x86 if x86 else on_arm, *map(ctypes.c_long, arguments))
def attempt(attack):
    try:
        eval(attack)
        return 'succeeded'
    except OSError as error:
        return errno.errorcode[error.errno]
entries = [(1, 7, -1), *((2, 7, user) for user in range(1, 8000)), (4, 7, -1), (16, 7, -1), (32, 7, -1)]
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries)
return_all = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = struct.pack('HP', 1, ctypes.addressof(return_all))
listener, pipe = socket.create_server(('127.0.0.1', 0)), os.pipe()[1]
sender = socket.create_connection(listener.getsockname())
receiver = listener.accept()[0]
received = receiver.fileno()
passwd = os.open('/etc/passwd', os.O_RDONLY)
disk = ctypes.create_string_buffer(bytes(128) + bytes([255] * 32), 256)
route = bytes([0, 252, 4, 125, 125, 0, 0, 0]) + bytes(16 * 126)
sender.sendall(b'data')
"""

REQUESTS = {
    # TIOCSTI, TIOCCONS, TIOCSETD, TIOCVHANGUP
    "0": (0x5412, 0x541D, 0x5423, 0x5437),
    # The kernel would load the modules bridge, dlci and 8021q. SIOCGSKNS opens the network namespace.
    "received": (0x8940, 0x8980, 0x8982, 0x89A0, 0x894C),
    # On a file of the machine's disk: FS_IOC_GETFSMAP lists its free space, FS_IOC_FIEMAP where the file is, the others
    # name or flush the disk, or show the project that its quota counts.
    "passwd": (0xC0C0583B, 0xC020660B, 0x80111500, 0x8008662C, 0x9408, 0x40089416, 0x80089418, 0x801C581F),
}
"""Requests of `ioctl`, by descriptor."""
ATTACKS = {
    "sockets": {
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)": errno.EPROTONOSUPPORT,  # uevents of the machine
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)": errno.EPROTONOSUPPORT,  # lists sockets
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)": errno.EPROTONOSUPPORT,
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)": errno.EPROTONOSUPPORT,  # MPTCP
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)": errno.EPROTONOSUPPORT,  # UDP-Lite
        "socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, 132)": errno.EPROTONOSUPPORT,
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)": errno.EPERM,
        "socket.socket(17, socket.SOCK_DGRAM)": errno.EAFNOSUPPORT,  # AF_PACKET
        "socket.socket(40, socket.SOCK_STREAM)": errno.EAFNOSUPPORT,  # AF_VSOCK
        "socket.socketpair(30, socket.SOCK_STREAM)": errno.EOPNOTSUPP,  # AF_TIPC
    },
    "socket options": {
        "socket.socket(2, 2).setsockopt(1, 26, program)": errno.EPERM,  # SO_ATTACH_FILTER
        "socket.socket(2, 2).setsockopt(1, 50, 0)": errno.EPERM,
        "socket.socket(2, 2).setsockopt(1, 51, program)": errno.EPERM,
        "socket.socket(2, 2).setsockopt(1, 52, 0)": errno.EPERM,
        "socket.socket(2, 2).setsockopt(1, 60, 1)": errno.EPERM,  # SO_ZEROCOPY
        "socket.socket(2, 2).setsockopt(17, 100, 1)": errno.ENOPROTOOPT,  # UDP_ENCAP
        "socket.socket().setsockopt(132, 0, 1)": errno.ENOPROTOOPT,
        "socket.socket().setsockopt(6, 14, bytes(216))": errno.ENOPROTOOPT,  # TCP_MD5SIG
        "socket.socket().setsockopt(6, 38, bytes(288))": errno.ENOPROTOOPT,  # TCP_AO_ADD_KEY
        "socket.socket(2, 2).setsockopt(0, 46, bytes(264))": errno.ENOPROTOOPT,  # MCAST_JOIN_SOURCE_GROUP
        "socket.socket(2, 2).setsockopt(0, 39, bytes(12))": errno.ENOPROTOOPT,  # IP_ADD_SOURCE_MEMBERSHIP
        "socket.socket(10, 2).setsockopt(41, 32, bytes(32))": errno.ENOPROTOOPT,  # IPV6_FLOWLABEL_MGR
        "socket.socket(10, 2).setsockopt(41, 6, bytes(65528))": errno.ENOPROTOOPT,  # IPV6_2292PKTOPTIONS
        "socket.socket(10, 2).setsockopt(41, 57, route)": errno.ENOPROTOOPT,  # IPV6_RTHDR
        "socket.socket(10, 2).setsockopt(41, 20, bytes(20))": errno.ENOPROTOOPT,  # IPV6_JOIN_GROUP
        "socket.socket(10, 2).setsockopt(41, 42, bytes(136))": errno.ENOPROTOOPT,  # MCAST_JOIN_GROUP
    },
    "pages of sockets": {
        # The kernel would count these pages for no container: a program held 300 MiB at a limit of 64.
        "socket.socket().getsockopt(6, 35, 64)": errno.ENOPROTOOPT,  # TCP_ZEROCOPY_RECEIVE
        "system(275, 76, received, 0, pipe, 0, 1, 0)": errno.EINVAL,  # splice
        "os.sendfile(pipe, received, None, 1)": errno.EINVAL,
        "os.sendfile(pipe, received, 0, 1)": errno.ESPIPE,
    },
    "attributes and locks of files": {
        # An access control list of a file in memory takes up to 64 KiB that the kernel counts for no container.
        "os.setxattr('.', 'system.posix_acl_default', acl)": errno.EOPNOTSUPP,
        "os.setxattr('main.py', 'system.posix_acl_access', acl, follow_symlinks=False)": errno.EOPNOTSUPP,
        "os.setxattr(0, 'user.name', b'value')": errno.EOPNOTSUPP,
        "fcntl.fcntl(0, 37, bytes(32))": errno.EINVAL,  # F_OFD_SETLK
        "system(56, 220, 0x10900)": errno.EPERM,  # a thread with descriptors of its own
        "system(436, 436, 900, 900, 2)": errno.EINVAL,  # close_range with CLOSE_RANGE_UNSHARE
        "call(libc.prctl, 0x53564d41, 0, 0, 0, 0)": errno.EINVAL,  # PR_SET_VMA
    },
    "filters": {
        "call(libc.prctl, 22, 2, program, 0, 0)": errno.EINVAL,
        "call(libc.prctl, 22, 1, 0, 0, 0)": errno.EINVAL,
        "call(libc.syscall, 317 if x86 else 277, 1, 0, program)": errno.ENOSYS,
    },
    "memory": {
        "mmap.mmap(-1, 1 << 21, flags=0x40022)": errno.ENOMEM,  # MAP_HUGETLB
        "call(libc.shmget, 0, ctypes.c_size_t(1 << 21), 0o5600)": errno.ENOMEM,  # SHM_HUGETLB
        "os.memfd_create('large', 4)": errno.EINVAL,  # MFD_HUGETLB
        "system(28, 233, 0, 0, 12)": errno.EINVAL,  # MADV_MERGEABLE
        "system(28, 233, 0, 0, 21)": errno.EINVAL,  # MADV_PAGEOUT: a setup evicted files of its image with it
        "call(libc.prctl, 67, 1, 0, 0, 0)": errno.EINVAL,  # PR_SET_MEMORY_MERGE
    },
    "priorities and limits": {
        "system(251, 30, 3, os.getuid(), 0x6007)": errno.EPERM,  # ioprio_set for all processes of the user
        "system(251, 30, 2, 0, 0x6007)": errno.EPERM,
        "system(251, 30, 1, 1, 0x6007)": errno.EPERM,
        "call(libc.prctl, 62, 1, 0, 0, 0)": errno.EINVAL,  # PR_SCHED_CORE_CREATE
        "resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))": errno.EPERM,
    },
    "machine-wide resources": {
        "call(libc.syscall, 206 if x86 else 0, 1000, zeros)": errno.ENOSYS,  # io_setup
        "system(425, 425, 8, 0)": errno.ENOSYS,  # io_uring_setup
        "system(278, 75, 0, 0, 0, 0)": errno.ENOSYS,  # vmsplice
        "call(libc.fanotify_mark, -1, 0, ctypes.c_ulong(0), -1, None)": errno.EPERM,
        **{
            f"call(libc.ioctl, {descriptor}, ctypes.c_ulong({request}), disk)": errno.ENOTTY
            for descriptor, requests in REQUESTS.items()
            for request in requests
        },
        "system(435, 435, 0, 88)": errno.ENOSYS,  # clone3, which hides its flags from filters
        "system(999, 999)": errno.ENOSYS,
        "system(0x40000000 + 39, 999)": errno.ENOSYS,  # getpid of the x32 ABI
    },
}


@pytest.mark.parametrize("kind", ATTACKS)
async def test_calls_and_arguments_that_no_program_needs_are_refused(attack: Attack, kind: str) -> None:
    result = await attack(f"{TRY}\nfor each in {list(ATTACKS[kind])}: print(attempt(each))")
    assert end_of(result) == COMPLETED, result
    answers = dict(zip(ATTACKS[kind], result["stdout"].split(), strict=True))
    assert answers == {each: errno.errorcode[number] for each, number in ATTACKS[kind].items()}


FROM_OUTSIDE = [
    attack
    for kind in (
        "sockets",
        "socket options",
        "pages of sockets",
        "attributes and locks of files",
        "memory",
        "machine-wide resources",
    )
    for attack, number in ATTACKS[kind].items()
]
"""The engine's filter refuses these, too."""
REPORT = f"{TRY}\nimport json; print(json.dumps([each for each in {FROM_OUTSIDE} if attempt(each) == 'succeeded']))"
FOR_THE_SUPERVISOR = ["socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)"]
"""In a sandbox, the engine's filter allows it, because the supervisor opens such a socket before it adds its filter."""
IN_SETUPS = REPORT.replace("if attempt", "if 'setxattr' not in each and attempt")
"""Setups may set attributes of files."""


async def test_the_engine_refuses_them_without_the_supervisor(attack: Attack) -> None:
    """An image with another Python need not install the supervisor's filter. `docker exec` does not, either."""
    (container,) = await until_containers(deployment_of(attack.server.data_dir), POOL)
    command = ["docker", "exec", "--user", "0", container, "python3", "-c", REPORT]
    assert json.loads((await anyio.run_process(command)).stdout) == FOR_THE_SUPERVISOR


OF_THE_MACHINE = """
import ctypes, os, resource, socket
limits = [resource.getrlimit(number)[1] for number in (7, 11, 12)]
buffer = open("/proc/sys/net/ipv4/tcp_wmem").read().split()[2]
print(ctypes.CDLL(None).inotify_init(), *limits, buffer, open("/proc/slabinfo", "rb").read())
print([name for _, _, names in os.walk("/sys/class/zram-control") for name in names])
try:
    os.mkdir("/dev/files")
except OSError as error:
    print(error.errno, os.statvfs("/dev/shm").f_files)
for call in (
    lambda: os.memfd_create("file"),
    lambda: socket.socket(type=socket.SOCK_DGRAM).setsockopt(0, 35, bytes([224, 1, 1, 1, 127, 0, 0, 1])),
):
    try:
        print(call())
    except OSError as error:
        print(error.errno)
"""

OWNED_BY_ROOT = """
import os
for folder, folders, files in os.walk("/proc"):
    if folder == "/proc":
        folders[:] = [name for name in folders if not name.isdigit()]
    for path in (os.path.join(folder, name) for name in (*folders, *files)):
        try:
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode & 0o7777)  # as it is
                print(path)
        except OSError:
            pass
"""


async def test_a_setup_is_filtered_but_can_install(attack: Attack) -> None:
    commands = [
        f"python3 -c {shlex.quote(IN_SETUPS)} > /opt/succeeded",
        "python3 -c 'import ctypes; print(ctypes.CDLL(None).prctl(22, 2, 0, 0, 0))' >> /opt/succeeded",
        "useradd --create-home someone && groupadd some && chown someone:some /opt && mkfifo /opt/pipe",
        "chmod 4755 /opt/succeeded && setpriv --reuid someone --regid some --clear-groups true",
        "python3 -m venv --without-pip /opt/venv && sync",
        'python3 -c \'import pty; raise SystemExit(pty.spawn(["stty", "rows", "50", "-echo"]))\'',
        # The kernel counts pipes and descriptors in flight for each user, also those of programs with this id.
        "! setpriv --reuid 100000 --clear-groups true",
        # The owner and the mode of these files are the same in all containers and on the machine.
        f"python3 -c {shlex.quote(OWNED_BY_ROOT)} >> /opt/succeeded",
        # The kernel counts these for the machine's administrator, as whom a setup runs, or for no container.
        f"python3 -c {shlex.quote(OF_THE_MACHINE)} >> /opt/succeeded",
    ]
    result = await attack("print(open('/opt/succeeded').read(), end='')", pre_commands=commands)
    machine = "-1 1024 1024 0 1048576 b''\n[]\n30 4096\n38\n105\n"
    assert (end_of(result), result.get("stdout")) == (COMPLETED, f"[]\n-1\n{machine}"), result


async def test_the_limit_on_core_dumps_does_not_change(attack: Attack) -> None:
    """The call reports success: programs such as gpg end if they cannot lower the limit."""
    source = """
import resource
before = resource.getrlimit(resource.RLIMIT_CORE)
for limits in ((0, 0), (2, 2), (-1, -1)):
    resource.setrlimit(resource.RLIMIT_CORE, limits)
print(resource.getrlimit(resource.RLIMIT_CORE) == before)
"""
    assert (await attack(source))["stdout"] == "True\n"


async def test_a_program_cannot_evict_files_of_its_image_from_memory(attack: Attack) -> None:
    """All containers of the image read the same pages. After an eviction, they read from the machine's disk."""
    source = """
import os, pydoc_data.topics
def read_from_disk():
    with open('/proc/self/io') as counters, open(pydoc_data.topics.__file__, 'rb') as file:
        before = int(counters.read().partition('\\nread_bytes: ')[2].split()[0])
        file.read()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        counters.seek(0)
        return int(counters.read().partition('\\nread_bytes: ')[2].split()[0]) - before
read_from_disk()
print(read_from_disk())
"""
    assert (await attack(source))["stdout"] == "0\n"


async def test_a_program_cannot_hide_its_descriptors(attack: Attack) -> None:
    """The supervisor reads them to estimate how many file locks there are. Programs such as gpg end on an error."""
    source = """
import ctypes
prctl = ctypes.CDLL(None).prctl
print(prctl(4, 0, 0, 0, 0), prctl(3, 0, 0, 0, 0))
"""
    assert (await attack(source))["stdout"] == "0 1\n"


async def test_what_programs_need_works(attack: Attack) -> None:
    source = """
import asyncio, fcntl, mmap, multiprocessing, os, shutil, socket, sqlite3, subprocess, tempfile, threading
from multiprocessing import shared_memory
done = []
threading.Thread(target=done.append, args=(1,)).start()
print(socket.if_nameindex()[0][1])
for family, kind, protocol in ((2, 1, 0), (2, 1, 6), (2, 2, 17), (10, 1, 0), (10, 2, 0), (1, 1, 0), (1, 5, 0)):
    with socket.socket(family, kind, protocol) as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
with multiprocessing.get_context('fork').Pool(2) as pool:
    print(pool.map(abs, [-1, 2]))
block = shared_memory.SharedMemory(create=True, size=100)
block.close()
block.unlink()
mmap.mmap(-1, 4096)[0] = 1
os.close(os.memfd_create('name'))
fcntl.lockf(os.open('/tmp/lock', os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
shutil.copy2(os.__file__, 'copy.py')
shutil.copytree('/etc/apt', 'tree')
os.sendfile(os.pipe()[1], os.open('copy.py', os.O_RDONLY), 0, 100)
os.closerange(900, 1000)
sqlite3.connect('data').execute('pragma journal_mode=wal')
os.sync()
print(subprocess.run(['sh', '-c', 'ulimit -c 0; echo ran | cat'], capture_output=True).stdout)
async def shell():
    process = await asyncio.create_subprocess_shell('exit 3')
    return await process.wait()
print(asyncio.run(shell()), sqlite3.connect('data').execute('select 1').fetchall(), done)
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (
        COMPLETED,
        "lo\n[1, 2]\nb'ran\\n'\n3 [(1,)] [1]\n",
    ), result
