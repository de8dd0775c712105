"""Test that a program finds a used sandbox as a new one, whatever the last program tried to leave in it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from pyexec.domain.output_files import FileLimits
from pyexec.sandbox.decoder import Decoder
from pyexec.sandbox.guest_source import supervisor_command
from pyexec.sandbox.protocol import (
    Exited,
    ProgramPlan,
    Ready,
    Rejected,
    StartSignal,
    archive_frame,
    plan_frames,
    start_frame,
)
from tests.support.api import Api, api_of
from tests.support.archives import script, tar_of
from tests.support.attack import COMPLETED, NARROW, TIMEOUT, end_of
from tests.support.cases import sampled
from tests.support.server import Server, running_server

STATE = """
import fcntl, json, os, resource, signal, socket, stat, sys

def entries(root):
    found = []
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            found.append((path, oct(info.st_mode), info.st_uid == os.getuid(), info.st_nlink))
    return sorted(found)

def mount(path):
    info, usage = os.stat(path), os.statvfs(path)
    own = (info.st_uid == os.getuid(), info.st_gid == os.getgid())
    return (oct(info.st_mode), own, os.listxattr(path), usage.f_bfree, usage.f_ffree)

def lines(path):
    try:
        return len(open(path).read().splitlines())
    except FileNotFoundError:
        return 0

def lock(path):
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

own, parent = str(os.getpid()), str(os.getppid())
lock('/etc/hosts')
print(json.dumps({
    'sandbox': open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19],
    'state': {
        'files': {path: entries(path) for path in ('/work', '/tmp', '/dev/shm', '/dev/mqueue', '/dev/pts')},
        'mounts': {path: mount(path) for path in ('/work', '/tmp', '/dev/shm')},
        'processes': [pid for pid in os.listdir('/proc') if pid.isdigit() and pid not in (own, parent)],
        'network': {name: lines('/proc/net/' + name) for name in
                    ('tcp', 'tcp6', 'udp', 'udp6', 'raw', 'unix', 'packet', 'netlink')},
        'ipc': [lines('/proc/sysvipc/' + kind) for kind in ('shm', 'msg', 'sem')],
        'limits': [resource.getrlimit(number) for number in range(16)],
        'signals': [line for line in open('/proc/self/status') if line.startswith(('Sig', 'Shd'))],
        'descriptors': sorted(os.listdir('/proc/self/fd')),
        'environment': sorted(os.environ.items()),
        'umask': os.umask(0),
        'priority': (os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))),
        'directory': os.getcwd(),
        'cpus': open('/proc/self/oom_score_adj').read(),
    },
}))
"""
CLEAN = {
    "daemons": """
import os, signal, time
for number in range(5):
    if os.fork() == 0:
        os.setsid()
        for sign in range(1, 65):
            if sign not in (9, 19, 32, 33):
                signal.signal(sign, signal.SIG_IGN)
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
""",
    "stopped and traced processes": """
import ctypes, os, signal
child = os.fork()
if child == 0:
    ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
os.kill(os.getpid(), signal.SIGKILL)
""",
    "files without permissions": """
import os
for root in ('/work', '/tmp', '/dev/shm'):
    path = root
    for depth in range(20):
        path += '/' + 'n' * (255 if depth == 0 else 20)
        os.mkdir(path)
        open(path + '/file', 'w').write('x' * 5000)
    while path != root:
        os.chmod(path, 0)
        path = os.path.dirname(path)
""",
    "links": """
import os, socket
os.symlink('/', 'root'); os.symlink('.', 'loop'); os.symlink('/dev/shm', '/tmp/shm')
open('one', 'w').close(); os.link('one', 'two'); os.mkfifo('fifo')
socket.socket(socket.AF_UNIX).bind('/tmp/socket')
open('open', 'w').write('x' * 100000); held = open('open'); os.unlink('open')
""",
    "roots of mounts": """
import os
for root in ('/work', '/tmp'):
    os.chmod(root, 0)
    os.utime(root, (1, 1), follow_symlinks=False)
    for name in ('user.left', 'system.posix_acl_default'):
        try:
            os.setxattr(root, name, bytes.fromhex('0200000001000700ffffffff04000700ffffffff20000700ffffffff'))
        except OSError:
            pass
""",
    "shared memory": """
from multiprocessing import shared_memory, resource_tracker
block = shared_memory.SharedMemory('left', create=True, size=1 << 20)
block.buf[:4] = b'left'
resource_tracker.unregister(block._name, 'shared_memory')
""",
    "signals for the supervisor": """
import os, signal
for number in range(1, 65):
    try:
        for _ in range(3): os.kill(1, number)
    except OSError:
        pass
""",
    "limits, locks and timers": """
import fcntl, os, resource, signal, time
resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10)); os.nice(19); os.umask(0o777); os.chdir('/')
held = [open(path) for path in ('/etc/hosts', '/etc/passwd', '/dev/null')]
for file in held:
    fcntl.flock(file, fcntl.LOCK_EX)
signal.setitimer(signal.ITIMER_REAL, 100)
os.sched_setaffinity(0, {0})
""",
    "sockets with data and descriptors in flight": """
import array, socket
a, b = socket.socketpair()
read, write = socket.socketpair()
socket.send_fds(a, [b'x' * 1000], [read.fileno(), write.fileno()])
named = socket.socket(socket.AF_UNIX); named.bind('\\0left'); named.listen()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))
udp.sendto(b'x' * 1000, udp.getsockname())
""",
    "memory and output": """
held = bytearray(40 << 20)
print('x' * 500_000)
raise SystemExit(3)
""",
}
"""Programs after which the sandbox is used again."""
INFECTION = """
import os
try:
    file = os.open('/proc/self/fd/5', os.O_RDWR)
except OSError:
    pass
else:
    try:
        os.write(file, b'infected')
    except OSError:
        pass
    os.fchmod(file, 0)
"""
"""Code that an interpreter loads before startup.py, and that tries to change the file which contains startup.py."""
DIRTY = {
    "flags of a mount's root": """
import fcntl, os
fd = os.open('/work', os.O_RDONLY)
try:
    fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, 'little'))
except OSError:  # this kernel has no flags here, so leave something else
    import ctypes
    ctypes.CDLL(None).shmget(0x5EC12E7, ctypes.c_size_t(4096), 0o1666)
""",
    "deep directories": """
import os
for _ in range(500):
    os.mkdir('d'); os.chdir('d')
""",
    "System V objects": """
import ctypes
libc = ctypes.CDLL(None)
libc.shmget(0x5EC12E7, ctypes.c_size_t(4096), 0o1666); libc.msgget(0x5EC12E7, 0o1666)
assert libc.semget(0x5EC12E7, 1, 0o1666) >= 0
""",
    "connections that wait for their end": """
import socket
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
accepted.send(b'x'); client.close(); accepted.close()
client = socket.create_connection(server.getsockname()); other, _ = server.accept()
client.shutdown(socket.SHUT_WR); other.close()
""",
}
"""Programs after which the sandbox is replaced."""


@pytest.fixture(scope="module")
def reusing(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one slot and no other idle sandboxes: the next run gets the last sandbox, or a new one."""
    options = {**NARROW, "warm_pool": "0", "max_concurrent": "1", "default_disk_mb": "64"}
    with running_server(tmp_path_factory.mktemp("reusing") / "data", image, **options) as server:
        yield server


@pytest.fixture
async def api(reusing: Server) -> AsyncIterator[Api]:
    async with api_of(reusing.url) as api:
        yield api


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """The first state that a program found."""
    return {}


async def state(api: Api, seen: dict[str, Any]) -> str:
    """Check that the next program finds the state that the first one found. Return what identifies its sandbox."""
    found = json.loads((await api.run(STATE))["stdout"])
    assert found["state"] == seen.setdefault("state", found["state"])
    return str(found["sandbox"])


@pytest.mark.parametrize("name", CLEAN)
async def test_a_cleaned_sandbox_is_like_a_new_one(api: Api, seen: dict[str, Any], name: str) -> None:
    before = await state(api, seen)
    result = await api.run(CLEAN[name])
    assert result["status"] == "completed", result
    assert await state(api, seen) == before


@pytest.mark.parametrize("name", DIRTY)
async def test_a_sandbox_that_cannot_be_cleaned_is_replaced(
    api: Api, seen: dict[str, Any], name: str
) -> None:
    before = await state(api, seen)
    assert end_of(await api.run(DIRTY[name])) == COMPLETED
    assert await state(api, seen) != before


async def test_startup_code_of_a_program_does_not_change_the_next_one(api: Api, seen: dict[str, Any]) -> None:
    before = await state(api, seen)
    site = ".local/lib/python3.11/site-packages"
    files = {
        "main.py": "print('ran')",
        f"{site}/x.pth": "import infection",
        f"{site}/infection.py": INFECTION,
    }
    answer = await api.sync(tar_of(files))
    assert answer.document["stdout"] == "ran\n"
    assert await state(api, seen) == before
    result = await api.run(
        "print(end='unfinished')\nimport time\ntime.sleep(9)", config={"timeout_seconds": 0.5}
    )
    assert result["stdout"] == "unfinished"


async def test_a_script_whose_name_begins_with_a_dash_is_no_option(api: Api) -> None:
    for name in ("-", "-mthis", "-c"):
        answer = await api.sync(
            tar_of({name: "print('own')"}), {"entrypoint": name, "stdin": "print('stdin')"}
        )
        assert answer.document["stdout"] == "own\n"


async def test_a_sandbox_is_used_again_after_a_timeout(api: Api, seen: dict[str, Any]) -> None:
    before = await state(api, seen)
    result = await api.run("while True: pass", config={"timeout_seconds": 0.3})
    assert end_of(result) == TIMEOUT
    assert await state(api, seen) == before


@sampled(
    ("error_type", "source"),
    [
        ("out_of_memory", "held = bytearray(1 << 30)"),
        ("cpu_limit", "while True: pass"),
        ("process_limit", "import os\nwhile True:\n try: os.fork()\n except OSError: pass"),
        (
            "disk_limit",
            "for at in '/work', '/tmp': open(f'{at}/x', 'wb').write(bytes(50 << 20))\nwhile True: pass",
        ),
        ("output_limit", "while True: print('x' * 100_000)"),
    ],
    every=2,
)
async def test_a_sandbox_is_replaced_after_a_limit(
    api: Api, seen: dict[str, Any], error_type: str, source: str
) -> None:
    before = await state(api, seen)
    result = await api.run(source, config={"cpu_seconds": 0.3 if error_type == "cpu_limit" else 20})
    assert result["error_type"] == error_type, result
    assert await state(api, seen) != before


async def test_a_sandbox_is_replaced_after_a_kill_and_after_a_program_with_network(
    api: Api, seen: dict[str, Any]
) -> None:
    before = await state(api, seen)
    execution_id = await api.accepted("print('up', flush=True)\nimport time\ntime.sleep(60)")
    await api.until_printed(execution_id, b"up")
    assert (await api.kill(execution_id)).document == {"status": "killed"}
    assert await state(api, seen) != before
    identify = "print(open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19])"
    connected = [await api.run(identify, config={"network_disabled": False}) for _ in range(2)]
    assert len({result["stdout"] for result in connected}) == 2, connected


async def test_limits_and_usage_are_those_of_the_present_run(api: Api) -> None:
    first = await api.run("held = bytearray(40 << 20)\nfor _ in range(3_000_000): pass")
    second = await api.run("print(1)")
    third = await api.run("held = bytearray(40 << 20)\nprint(len(held))")
    assert first["usage"]["peak_memory_bytes"] > 40 << 20 > second["usage"]["peak_memory_bytes"]
    assert first["usage"]["cpu_seconds"] > second["usage"]["cpu_seconds"]
    assert third["stdout"] == f"{40 << 20}\n"


async def test_output_files_and_results_are_those_of_the_present_run(api: Api) -> None:
    for number in range(3):
        code = f"open('out-{number}', 'w').write('')\n{number}"
        answer = await api.eval({"code": code, "eval_last_expr": True, "output_files": ["out-*"]})
        found = answer.document["result"], [file["path"] for file in answer.document["files"]]
        assert found == (str(number), [f"out-{number}"])


async def test_a_used_sandbox_ends_some_time_after_its_server(image: str) -> None:
    """Until then, another server can read the end of the last program from the engine's log."""
    long, short = "LINGER_SECONDS = 120.0", "LINGER_SECONDS = 1.0"
    command = [part.replace(long, short) for part in supervisor_command(prestart=True)]
    mount = "uid=1000,gid=1000,exec"
    process = await asyncio.create_subprocess_exec(
        "docker", "run", "--interactive", "--rm", "--network", "none", "--read-only", "--user", "1000:1000",
        "--tmpfs", f"/work:{mount}", "--tmpfs", f"/tmp:{mount}", image, *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    plan = ProgramPlan(entrypoint="main.py", args=(), env=(), evaluate=False)
    start = StartSignal(
        nonce="n", timeout=10, memory_bytes=1 << 26, disk_bytes=1 << 26, output_bytes=100, output_files=(),
        file_limits=FileLimits(bytes_max=0), reuse=True, cpu_seconds=None,
    )  # fmt: skip
    archive = archive_frame(script("print('on')")) + archive_frame(b"")
    with anyio.fail_after(60):
        output, _ = await process.communicate(archive + plan_frames(plan, b"") + start_frame(start))
    *_, exited, ready, rejected = Decoder().feed(output)
    assert isinstance(exited, Exited)
    assert exited.reason == "exit"
    assert isinstance(ready, Ready)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "abandoned"
