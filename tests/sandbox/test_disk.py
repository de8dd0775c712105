"""Test programs that write too much, write where they must not, or use names that lead elsewhere."""

import io
import tarfile
from itertools import product

from tests.support.attack import COMPLETED, DISK_LIMIT, Attack, end_of
from tests.support.cases import sampled

FULL = "No space left on device"


@sampled(("path", "size_mb"), [("/work", 16), ("/tmp", 16)], every=2)
async def test_a_full_disk_is_the_programs_own_error(attack: Attack, path: str, size_mb: int) -> None:
    source = f"""
written = 0
with open('{path}/big', 'wb', buffering=0) as file:
    try:
        while True:
            written += file.write(bytes(65536))
    except OSError as error:
        print(written >> 20, error.strerror)
"""
    result = await attack(source)
    assert end_of(result) == COMPLETED
    assert result["stdout"] in (f"{size_mb - 1} {FULL}\n", f"{size_mb} {FULL}\n")


@sampled(
    ("write", "wait"),
    [
        ("open(f'{path}/big', 'wb').write(bytes(10 << 20))", "time.sleep(60)"),
        ("open(f'{path}/big', 'wb').write(bytes(10 << 20))", ""),
        ("for number in range(2500): open(f'{path}/{number}', 'w').close()", ""),
    ],
    every=2,
)
async def test_the_limit_holds_for_both_directories_together(attack: Attack, write: str, wait: str) -> None:
    source = f"""
import time
for path in ('/work', '/tmp'):
    {write}
    print(path, flush=True)
{wait}
"""
    result = await attack(source, output_files=["big"])
    assert (end_of(result), result["stdout"].startswith("/work\n")) == (DISK_LIMIT, True)
    assert result["error"] == "the program's files in /work and /tmp took more than 16 MiB and it was stopped"


async def test_writers_that_are_faster_than_the_supervisor_are_stopped(attack: Attack) -> None:
    source = """
import os
block = bytes(1 << 20)
for number in range(8):
    if os.fork() == 0:
        break
while True:
    try:
        with open(f'{("/work", "/tmp")[number % 2]}/{os.getpid()}', 'wb', buffering=0) as file:
            while True:
                file.write(block)
    except OSError:
        pass
"""
    result = await attack(source, config={"disk_mb": 64})
    assert end_of(result) == DISK_LIMIT


async def test_a_full_directory_and_small_files_in_the_other_are_the_programs_own_error(
    attack: Attack,
) -> None:
    source = """
for number in range(50):
    open(f'/tmp/{number}', 'w').write('x')
open('big', 'wb').write(bytes(17 << 20))
"""
    result = await attack(source)
    assert end_of(result) == ("completed", "OSError", 1)
    assert result["error"] == (
        "[Errno 28] No space left on device (files in /work and /tmp together may take 16 MiB in this run; "
        "change it with config.disk_mb, or --disk)"
    )


@sampled(
    ("path", "how"),
    product(
        ["/work", "/tmp", "/dev/shm"],
        ["open(name, 'w').close()", "os.mkdir(name)", "os.symlink('x' * 100, name)"],
    ),
    every=4,  # each path once, each way once
)
async def test_many_small_files_fill_the_disk(attack: Attack, path: str, how: str) -> None:
    source = f"""
import os
number = 0
try:
    while True:
        name = f'{path}/{{number}}'
        {how}
        number += 1
except OSError as error:
    print(error.strerror)
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, FULL + "\n")


async def test_a_sparse_file_cannot_exceed_the_disk_limit(attack: Attack) -> None:
    source = """
import os
with open('holes', 'wb') as file:
    file.truncate(1 << 40)
    print(os.stat('holes').st_blocks)
    try:
        os.posix_fallocate(file.fileno(), 0, 1 << 30)
    except OSError as error:
        print(error.strerror)
"""
    result = await attack(source, output_files=["holes"])
    assert (end_of(result), result["stdout"]) == (COMPLETED, f"0\n{FULL}\n")
    assert (result.get("files", []), result["files_truncated"]) == ([], True)


async def test_a_very_deep_directory_tree_truncates_the_output_files(attack: Attack) -> None:
    source = "import os\nfor _ in range(2000):\n os.mkdir('d')\n os.chdir('d')\nopen('end', 'w').close()"
    result = await attack(source, output_files=["**/*"])
    assert end_of(result) == COMPLETED
    assert {file["path"] for file in result["files"]} == {"main.py", attack.mark}
    assert result["files_truncated"] is True


async def test_a_program_can_write_only_to_its_own_directories(attack: Attack) -> None:
    source = """
import os
writable = set()
for directory, names, files in os.walk('/'):
    if directory in ('/proc', '/sys'):
        names.clear()
        continue
    try:
        with open(directory + '/probe', 'w'):
            writable.add(directory)
            names.clear()
    except OSError:
        pass
print(sorted(writable))
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "['/dev/mqueue', '/dev/shm', '/tmp', '/work']\n")


@sampled("name", ["/etc/shadow", "/proc/1/environ", "/var/run/docker.sock", "/dev/mem"], every=4)
async def test_links_give_no_access_to_protected_files(attack: Attack, name: str) -> None:
    source = f"""
import os
os.symlink({name!r}, 'file')
os.symlink('/', 'root')
os.symlink('loop', 'loop')
try:
    open('file', 'rb').read()
    print('read')
except OSError as error:
    print('refused')
try:
    os.link({name!r}, 'hard')
    print('linked')
except OSError:
    print('refused')
open('mine', 'w').write('mine')
"""
    result = await attack(source, output_files=["file", "root/etc/passwd", "root/**", "hard", "loop", "mine"])
    assert (end_of(result), result["stdout"]) == (COMPLETED, "refused\nrefused\n")
    assert result["files"] == [{"path": "mine", "size": 4}]


async def test_the_tar_of_output_files_has_only_safe_names(attack: Attack) -> None:
    source = """
import os, socket
os.mkfifo('fifo')
socket.socket(socket.AF_UNIX).bind('socket')
for name in ('new\\nline', '-rf', 'a' * 200, ' ', '\\u202egnp.exe', b'\\xff\\xfe'):
    open(name, 'w').write('x')
"""
    result = await attack(source, output_files=["*"])
    assert (end_of(result), result["files_truncated"]) == (COMPLETED, True)
    path = f"/api/v1/executions/{result['execution_id']}/files"
    async with attack.api.session.get(path) as answer:
        with tarfile.open(fileobj=io.BytesIO(await answer.read())) as tar:
            members = tar.getmembers()
    assert all(member.isreg() for member in members)
    assert {"-rf", "a" * 200, "main.py"} <= {member.name for member in members}
    assert not any("\n" in member.name or "\udcff" in member.name for member in members)
