"""Test that a setup cannot store more than its limit, whatever operation it uses."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.api import Api, api_of
from tests.support.cases import sampled
from tests.support.images import docker, environments_of, own_image, remove_environments
from tests.support.server import SETUP_NETWORK, Server, running_server

LIMIT_MB = 64
OVER = "setup wrote more than 64 MiB and was stopped"


@pytest.fixture(scope="module")
def image(image: str) -> Iterator[str]:
    """Yield an image that only this file uses, so that no other server builds environments from it."""
    with own_image(image) as own:
        yield own


@pytest.fixture(scope="module")
def small(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server whose setups may store little."""
    settings = {**SETUP_NETWORK, "setup_disk_mb": str(LIMIT_MB), "warm_pool": "0"}
    with running_server(tmp_path_factory.mktemp("small") / "data", image, **settings) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log


@pytest.fixture
async def api(small: Server, image: str) -> AsyncIterator[Api]:
    async with api_of(small.url) as client:
        yield client
    remove_environments(image)


HEADER = """
import ctypes, mmap, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def allocate(file, size):
    os.write(file.fileno(), bytes(size))
    time.sleep(0.005)
"""
ATTACKS = {
    "space beyond the end of a file": """
for n in range(100):
    with open(f'/f{n}', 'wb') as file:
        if libc.fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(4 << 20)):
            allocate(file, 4 << 20)  # a filter of system calls refuses it
    time.sleep(0.005)
""",
    "open deleted files": """
held = []
for n in range(100):
    held.append(open('/deleted', 'wb'))
    os.unlink('/deleted')
    allocate(held[-1], 4 << 20)
""",
    "open deleted files of another user": """
os.mkdir('/theirs')
os.chmod('/theirs', 0o777)
os.setuid(1234)
held = []
for n in range(100):
    held.append(open('/theirs/deleted', 'wb'))
    os.unlink('/theirs/deleted')
    allocate(held[-1], 4 << 20)
""",
    "open deleted files of a process that cannot be read": """
libc.prctl(4, 0, 0, 0, 0)
held = []
for n in range(100):
    held.append(open('/deleted', 'wb'))
    os.unlink('/deleted')
    allocate(held[-1], 4 << 20)
""",
    "mapped deleted files": """
held = []
for n in range(100):
    with open('/deleted', 'w+b') as file:
        os.unlink('/deleted')
        allocate(file, 4 << 20)
        held.append(mmap.mmap(file.fileno(), 4096))
        number = os.dup(file.fileno())
""",
    "descriptors in flight": """
pairs = []
for n in range(100):
    with open('/deleted', 'wb') as file:
        os.unlink('/deleted')
        allocate(file, 4 << 20)
        pairs.append(socket.socketpair())
        socket.send_fds(pairs[-1][0], [b'x'], [file.fileno()])
""",
    "directories": """
for n in range(100_000):
    os.mkdir(f'/d{n}')
""",
    "empty files": """
os.mkdir('/e')
for n in range(100_000):
    open(f'/e/{n}', 'w').close()
""",
    "extended attributes": """
for n in range(30_000):
    open(f'/a{n}', 'w').close()
    os.setxattr(f'/a{n}', 'user.a', bytes(3000))
""",
    "deep directories": """
for n in range(100_000):
    os.mkdir('d')
    os.chdir('d')
""",
    "a file that Docker has mounted": """
with open('/etc/hosts', 'ab') as file:
    for n in range(15):
        allocate(file, 4 << 20)
with open('/etc/resolv.conf', 'ab') as file:
    for n in range(15):
        allocate(file, 4 << 20)
""",
    "a tree that is renamed all the time": """
import threading
os.mkdir('/a'); os.mkdir('/z'); os.mkdir('/a/tree')
def rename():
    while True:
        os.rename('/a/tree', '/z/tree')
        os.rename('/z/tree', '/a/tree')
threading.Thread(target=rename, daemon=True).start()
for n in range(100):
    for folder in '/a/tree', '/z/tree':
        try:
            with open(f'{folder}/{n}', 'wb') as file:
                allocate(file, 4 << 20)
        except FileNotFoundError:
            pass
""",
    "mapped deleted files of a process whose first thread has ended": """
import threading
def hold():
    for n in range(100):
        with open('/deleted', 'w+b') as file:
            os.unlink('/deleted')
            allocate(file, 4 << 20)
            libc.mmap(None, 4096, 1, 2, file.fileno(), ctypes.c_long(0))
    time.sleep(5)
threading.Thread(target=hold).start()
libc.pthread_exit(None)
""",
}


@sampled("attack", ATTACKS, every=4)
async def test_a_setup_cannot_exceed_its_disk_space(api: Api, image: str, attack: str) -> None:
    command = f"cat > /attack.py <<'END'\n{HEADER}{ATTACKS[attack]}\ntime.sleep(60)\nEND\npython3 /attack.py"
    result = await api.run("", pre_commands=[command])
    assert (result["error_type"], result["error"]) == ("setup_failed", OVER), result
    assert environments_of(image) == []


async def test_a_setup_cannot_control_the_process_that_measures_it(api: Api) -> None:
    attack = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
for number in set(signal.Signals) - {signal.SIGALRM}:
    try:
        os.kill(1, number)
    except PermissionError:
        pass
print(libc.ptrace(16, 1, None, None), end=' ')
for path in '/proc/1/mem', '/proc/1/fd/1':
    try:
        open(path, 'wb')
        print(path)
    except PermissionError:
        print('refused', end=' ')
"""
    result = await api.run("", pre_commands=[f"python3 - <<'END'\n{attack}\nEND\nexit 3"])
    assert result["exit_code"] == 3, result
    assert result["stderr"].endswith("-1 refused refused "), result


async def test_the_size_of_an_environment_includes_attributes_and_inodes(api: Api, image: str) -> None:
    command = """python3 - <<'END'
import os
for n in range(1000):
    open(f'/opt/{n}', 'w').close()
    os.setxattr(f'/opt/{n}', 'user.a', bytes(3000))
END"""
    result = await api.run("print('fine')", pre_commands=[command])
    assert result["stdout"] == "fine\n", result
    size = environment_size(image)
    assert 1000 * (4096 + 3000) <= size < 1000 * (8192 + 3000) + (1 << 20)


def environment_size(image: str) -> int:
    """Return the size with which the server counts the only environment of an image."""
    (made,) = environments_of(image)
    names = docker("inspect", "--format", '{{join .RepoTags " "}}', made)
    (size,) = [int(name.split(".")[1]) for name in names if "." in name]
    return size


async def test_an_environment_without_files_counts_as_one_mebibyte(api: Api, image: str) -> None:
    """Otherwise there could be any number of them: Docker has files of its own for each image."""
    assert (await api.run("print('fine')", pre_commands=["true"]))["stdout"] == "fine\n"
    assert environment_size(image) >= 1 << 20


@pytest.mark.full
async def test_a_setup_within_its_limit_may_hold_deleted_files_and_use_other_users(api: Api) -> None:
    command = """python3 - <<'END'
import os, time
held = open('/deleted', 'wb')
os.unlink('/deleted')
held.write(bytes(40 << 20))
held.flush()
os.setuid(1234)
time.sleep(0.5)
END"""
    result = await api.run("print('fine')", pre_commands=[command, command.replace("40", "41")])
    assert result["stdout"] == "fine\n", result


async def test_a_setup_cannot_hold_memory_in_many_sockets(api: Api) -> None:
    """The kernel counts their buffers for no container: 900 sockets of this kind held 183 MiB."""
    command = """python3 - <<'END'
import os, socket, time
for _ in range(5):
    if os.fork() == 0:
        held = [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) for _ in range(1000)]
        time.sleep(60)
time.sleep(60)
END"""
    result = await api.run("", pre_commands=[command])
    assert result["error"].startswith("setup was stopped: its sockets could hold too much memory"), result
