"""Test programs that attack what the kernel counts for the whole machine or for each user, not for each container."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from tests.support.attack import COMPLETED, DISK_LIMIT, OUT_OF_MEMORY, Attack, end_of
from tests.support.cases import sampled
from tests.support.images import docker

FILL_TCP = """
import socket
listener = socket.create_server(('127.0.0.1', 0), backlog=512)
kept, total = [], 0
for _ in range(400):
    ends = socket.create_connection(listener.getsockname()), listener.accept()[0]
    kept.append(ends)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        end.setblocking(False)
        try:
            while True:
                total += end.send(bytes(65536))
        except BlockingIOError:
            pass
"""
FILL_UDP = """
import socket
kept = []
for _ in range(1000):
    receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(('127.0.0.1', 0))
    sender.close()
    sender = kept[0][1] if kept else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    kept.append((receiver, sender))
    for _ in range(40):
        sender.sendto(bytes(8192), receiver.getsockname())
"""
FILL_NETLINK = """
import socket, struct
kept = []
for _ in range(1000):
    kept.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
    for _ in range(500):
        kept[-1].send(struct.pack('IHHII', 32, 9999, 5, 1, 0) + bytes(16))
"""


@sampled("fill", [FILL_TCP, FILL_UDP, FILL_NETLINK], ids=["tcp", "udp", "netlink"], every=3)
async def test_buffers_of_sockets_count_as_memory(attack: Attack, fill: str) -> None:
    result = await attack(f"{fill}\nimport time; time.sleep(0.5); print('filled')")
    assert (end_of(result), result["stdout"]) == (OUT_OF_MEMORY, "")


KEEP_RESET = """
import socket, struct
listener = socket.create_server(('127.0.0.1', 0), backlog=512)
kept = []
for _ in range(900):
    sender = socket.create_connection(listener.getsockname())
    kept.append(listener.accept()[0])
    sender.send(bytes(131072), socket.MSG_DONTWAIT)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sender.close()
"""
KEEP_DISCONNECTED = """
import ctypes, socket
kept = []
for _ in range(900):
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    kept[-1].connect(('127.0.0.1', 9))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(('127.0.0.1', 0))
        kept[-1].connect(sender.getsockname())
        for _ in range(20):
            sender.sendto(bytes(8192), kept[-1].getsockname())
    ctypes.CDLL(None).connect(kept[-1].fileno(), bytes(16), 16)  # AF_UNSPEC
"""
ASK_FOR_STAMPS = """
import socket, struct
listener = socket.create_server(('127.0.0.1', 0), backlog=512)
stamps = (socket.SOL_SOCKET, 37, struct.pack('I', 0x302))  # SO_TIMESTAMPING: when scheduled, sent and acknowledged
kept = []
for _ in range(450):
    ends = socket.create_connection(listener.getsockname()), listener.accept()[0]
    kept.append(ends)
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(60):
        for sender, receiver in (ends, ends[::-1]):
            sender.sendmsg([bytes(64)], [stamps])
            receiver.recv(100)
"""


@pytest.mark.parametrize(
    "keep",
    [KEEP_RESET, KEEP_DISCONNECTED, ASK_FOR_STAMPS],
    ids=["reset connections", "disconnected sockets", "time stamps"],
)
async def test_what_the_lists_of_sockets_do_not_show_counts_as_memory(attack: Attack, keep: str) -> None:
    """A socket without a port keeps its data. Time stamps of sent data wait in a queue of their own."""
    result = await attack(f"{keep}\nimport time; time.sleep(0.5); print('kept')")
    assert (end_of(result), result["stdout"]) == (OUT_OF_MEMORY, ""), result


async def test_many_idle_connections_are_no_attack(attack: Attack) -> None:
    source = """
import socket, time
listener = socket.create_server(('127.0.0.1', 0), backlog=512)
kept = [(socket.create_connection(listener.getsockname()), listener.accept()[0]) for _ in range(400)]
time.sleep(0.5)
for client, server in kept:
    client.sendall(b'question')
    server.sendall(server.recv(8))
print(sum(client.recv(8) == b'question' for client, _ in kept))
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "400\n")


async def test_a_program_has_limits_on_what_the_kernel_counts_for_its_user(attack: Attack) -> None:
    source = """
import resource
for name in ('NOFILE', 'MEMLOCK', 'MSGQUEUE', 'SIGPENDING', 'CORE'):
    print(name, *resource.getrlimit(getattr(resource, f'RLIMIT_{name}')))
print(open('/proc/sys/net/ipv4/tcp_max_tw_buckets').read(), end='')
for name in ('NOFILE', 'MSGQUEUE'):
    try:
        resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (2000000, 2000000))
    except ValueError as error:
        print(error)
"""
    assert (await attack(source))["stdout"].splitlines() == [
        "NOFILE 1024 1024",
        "MEMLOCK 65536 65536",
        "MSGQUEUE 819200 819200",
        "SIGPENDING 1024 1024",
        "CORE 1 1",
        "4096",
        *["not allowed to raise maximum limit"] * 2,
    ]


async def test_each_sandbox_has_a_user_and_files_of_its_own(attack: Attack) -> None:
    """Both programs take all that the kernel grants a user, and lock every file that they could share."""
    source = """
import ctypes, fcntl, os, signal, time
libc = ctypes.CDLL(None)
taken = [sum(libc.inotify_init() >= 0 for _ in range(600))]
pipes = [os.pipe()[1] for _ in range(80)]  # the kernel grants a user 64 of 1 MiB
for pipe in pipes:
    try:
        fcntl.fcntl(pipe, 1031, 1 << 20)  # F_SETPIPE_SZ
    except PermissionError:
        pass
taken.append(sum(fcntl.fcntl(pipe, 1032) == 1 << 20 for pipe in pipes))
taken.append(sum(libc.mq_open(b'/%d' % n, os.O_RDWR | os.O_CREAT, 0o600, None) >= 0 for n in range(100)))
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGRTMIN,))
taken.append(sum(libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) == 0 for _ in range(2000)))
locked = {}
for path in ('/etc/passwd', '/etc/group', '/etc/hosts', '/etc/hostname', '/etc/resolv.conf'):
    if os.path.exists(path):
        file = open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked[path] = file
        except BlockingIOError:
            pass
inodes = {(os.stat(path).st_dev, os.stat(path).st_ino) for path in locked}
print(os.getuid(), *taken, *sorted(locked), flush=True)
time.sleep(1)
"""
    results = []

    async def run(memory_mb: int) -> None:
        results.append(await attack(source, config={"memory_mb": memory_mb}))

    async with anyio.create_task_group() as tasks:
        for memory_mb in (
            64,
            65,
        ):  # different kinds of sandboxes: the second program must not get the first one's
            tasks.start_soon(run, memory_mb, name=f"program with {memory_mb} MiB")
    first, second = (result["stdout"].split() for result in results)
    assert first[0] != second[0]
    assert first[1:] == second[1:]
    assert min(map(int, first[1:5])) > 5, first
    assert {"/etc/passwd", "/etc/group", "/etc/hosts"} <= set(first)


FILL_LOCKS = """
import ctypes, os, struct, time
libc = ctypes.CDLL(None)
locks = [ctypes.create_string_buffer(struct.pack('hhqqi', 1, 0, 2 * n, 1, 0)) for n in range(100)]
for _ in range(3):
    os.fork()
for _ in range(900):
    file = os.memfd_create('locked')
    for lock in locks:
        libc.fcntl(file, 6, lock)
time.sleep(10)
print('filled')
"""


async def test_file_locks_count_as_memory(attack: Attack) -> None:
    """A lock takes 192 bytes of the kernel, which counts them for no container. These would take 137 MiB."""
    result = await attack(FILL_LOCKS)
    assert (end_of(result), result["stdout"]) == (OUT_OF_MEMORY, "")


MAP_FILES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
name = 'file 00:00 0 '  # looks like the device and the inode of a mapping without a file
open(name, 'wb').write(bytes(4096))
os.fork()
for _ in range(42_000):
    file = os.open(name, os.O_RDONLY)
    libc.mmap(None, 4096, 1, 2, file, 0)
    os.close(file)
time.sleep(10)
print('mapped')
"""


async def test_mapped_files_count_as_memory(attack: Attack) -> None:
    """They stay open without a descriptor, and the machine has a limit on open files."""
    result = await attack(MAP_FILES)
    assert (end_of(result), result["stdout"]) == (OUT_OF_MEMORY, "")


JOIN_GROUPS = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as member:
    for number in range(5):
        try:
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, bytes([224, 1, 1, number, 127, 0, 0, 1]))
        except OSError as error:
            print(number, error.errno)
"""


async def test_a_socket_joins_few_multicast_groups(attack: Attack) -> None:
    """Each takes memory of the kernel, which counts it for no container."""
    assert (await attack(JOIN_GROUPS))["stdout"] == "2 105\n3 105\n4 105\n"


FILL_WATCHES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
watching = libc.inotify_init1(0)
for directory, _, names in os.walk("/usr"):
    for name in names:
        libc.inotify_add_watch(watching, os.fsencode(os.path.join(directory, name)), 1)
for number in range(10, 1000):
    os.dup2(watching, number)
for number in range(12000):
    libc.mmap(None, 4096, 1 + number % 2, 0x22, -1, 0)
for _ in range(40):
    if os.fork() == 0:
        time.sleep(60)
def supervisor_seconds():
    return sum(map(int, open("/proc/1/stat").read().split()[13:15])) / os.sysconf("SC_CLK_TCK")
before = supervisor_seconds()
time.sleep(2)
print(supervisor_seconds() - before)
"""


async def test_watches_of_files_do_not_keep_the_supervisor_busy(attack: Attack) -> None:
    """It counts file locks because the kernel's memory has grown. Meanwhile it checks no other limit."""
    result = await attack(FILL_WATCHES, config={"memory_mb": 128})
    assert end_of(result) == COMPLETED
    assert float(result["stdout"]) < 0.5


async def test_no_terminal_can_be_opened(attack: Attack) -> None:
    source = """
import os, pty
for open_terminal in (os.openpty, pty.openpty):
    try:
        print(open_terminal())
    except OSError as error:
        print(type(error).__name__)
print(os.listdir('/dev/pts'), os.path.exists('/dev/ptmx'))
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "FileNotFoundError\nOSError\n[] False\n")


HIDDEN = (
    "/proc/kallsyms",
    "/proc/config.gz",
    "/proc/modules",
    "/proc/kcore",
    "/proc/interrupts",
    "/proc/diskstats",
)
HIDDEN_DIRECTORIES = (
    *("/proc/pressure", "/sys/module", "/sys/kernel/slab", "/sys/block", "/sys/firmware"),
    *("/proc/fs", "/sys/fs/xfs", "/sys/devices/virtual/block"),
)
DISKS = [str(disk.resolve()) for disk in Path("/sys/class/block").glob("*")]


async def test_files_of_the_kernel_are_empty(attack: Attack) -> None:
    source = f"""
import os
for path in {HIDDEN}:
    try:
        print(len(open(path, 'rb').read(100)) and path, end='')
    except OSError:
        print(0, end='')
for path in {DISKS}:
    print(os.path.exists(path) and path or 0, end='')
for path in {HIDDEN_DIRECTORIES}:
    print(len(os.path.isdir(path) and os.listdir(path) or ()) and path, end='')
"""
    assert set((await attack(source))["stdout"]) == {"0"}


@pytest.fixture(scope="module")
def image_with_volumes(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    context = tmp_path_factory.mktemp("image")
    (context / "Dockerfile").write_text(
        f'FROM {image}\nRUN mkdir -m 777 /data \'/more data\'\nVOLUME ["/data/", "/more data"]\n'
    )
    name = f"pyexec-test-volumes:{secrets.token_hex(4)}"
    build = ["docker", "build", "-q", "--network", "none", "-t", name, context]
    subprocess.run(build, check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)


FILL_VOLUMES = """
import os
def fill(path, size):
    with open(path, 'wb', buffering=0) as file:
        for _ in range(size):
            file.write(bytes(1 << 20))
"""


async def test_volumes_of_an_image_are_in_memory_and_count_as_disk(
    attack: Attack, image_with_volumes: str
) -> None:
    kinds = f"""{FILL_VOLUMES}
kinds = [line.split()[1:3] for line in open('/proc/mounts')]
print([kind for path, kind in kinds if 'data' in path], os.listdir('/data'))
fill('/data/a', 4)
try:
    fill('/more data/a', 100)
except OSError as error:
    print(error.strerror)
"""
    result = await attack(kinds.replace("100", "5"), docker_image=image_with_volumes)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "['tmpfs', 'tmpfs'] []\n")
    both = f"{FILL_VOLUMES}fill('/data/a', 10)\nfill('/more data/a', 10)\nimport time; time.sleep(1)"
    assert end_of(await attack(both, docker_image=image_with_volumes)) == DISK_LIMIT
    built = await attack(
        kinds, docker_image=image_with_volumes, pre_commands=["grep ' /data tmpfs ' /proc/mounts"]
    )
    assert built["stdout"].splitlines()[0] == "['tmpfs', 'tmpfs'] []"


@pytest.fixture
def image_of(image: str) -> Iterator[Callable[[str], str]]:
    """Yield a function that builds an image with these instructions, and returns its name."""
    name = f"pyexec-test-hostile:{secrets.token_hex(4)}"

    def build(instructions: str) -> str:
        dockerfile = f"FROM {image}\n{instructions}\n"
        docker("build", "-q", "--network", "none", "-t", name, "-", stdin=dockerfile)
        return name

    yield build
    docker("rmi", "-f", name)


@pytest.fixture(params=["/etc/hostname", pytest.param("/etc/alternatives/README", marks=pytest.mark.full)])
def image_with_file_as_volume(image: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name, (container,) = f"pyexec-test-hostile:{secrets.token_hex(4)}", docker("create", image, "true")
    docker("commit", "--change", f"VOLUME {request.param}", container, name)  # `docker build` refuses this
    docker("rm", container)
    yield name
    docker("rmi", "-f", name)


async def test_a_relative_volume_of_an_image_does_not_reach_the_disk(
    attack: Attack, image_of: Callable[[str], str]
) -> None:
    """Docker mounts the volume `link` first, at /t. The file system in memory at /link comes later, when the volume
    /m hides where the link leads."""
    links = "mkdir /m && mkdir -m 1777 /t && ln -s /t /m/d && ln -s /m/d /link"
    name = image_of(f'RUN {links}\nVOLUME ["link", "/m"]')
    for setup in ([], ["true"]):
        result = await attack("open('/t/a', 'wb')", docker_image=name, pre_commands=setup)
        assert result["error_type"] == "image_unavailable"
        assert "declares link as a volume" in result["error"]


@sampled(
    "volumes",
    [[f"/v{number}" for number in range(17)], ["/proc/v"], ["/sys/v"], ["/dev/v"]],
    ids=["17 volumes", "/proc", "/sys", "/dev"],
    every=2,
)
async def test_an_image_with_other_unsupported_volumes_is_rejected(
    attack: Attack, image_of: Callable[[str], str], volumes: Sequence[str]
) -> None:
    result = await attack("", docker_image=image_of(f"VOLUME {json.dumps(volumes)}"))
    assert result["error_type"] == "image_unavailable"
    assert "declares" in result["error"]


async def test_an_image_into_which_no_files_of_a_setup_can_be_copied_is_rejected(
    attack: Attack, image_of: Callable[[str], str]
) -> None:
    name = image_of("RUN ln -s /nowhere /.pyexec")
    assert (await attack("print(end='ran')", docker_image=name))["stdout"] == "ran"
    result = await attack("", docker_image=name, pre_commands=["true"])
    assert result["error_type"] == "image_unavailable"
    assert "cannot be copied to /.pyexec" in result["error"]


@pytest.mark.parametrize(
    ("instruction", "place"),
    [
        ("RUN rm -rf /work && touch /work", "/work"),
        pytest.param("RUN ln -sf /proc/sysrq-trigger /etc/passwd", "/etc/passwd", marks=pytest.mark.full),
    ],
)
async def test_an_image_with_a_bad_mount_point_is_rejected(
    attack: Attack, image_of: Callable[[str], str], instruction: str, place: str
) -> None:
    result = await attack("", docker_image=image_of(instruction))
    assert result["error_type"] == "image_unavailable"
    assert f"its path {place} cannot be a mount point" in result["error"]


async def test_an_image_with_a_file_as_a_volume_is_rejected(
    attack: Attack, image_with_file_as_volume: str
) -> None:
    result = await attack("", docker_image=image_with_file_as_volume)
    assert result["error_type"] == "image_unavailable"
