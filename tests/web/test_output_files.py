"""Test `output_files`: matching files below /work are returned, within limits, even from a hostile tree."""

import zlib
from collections.abc import AsyncIterator, Iterator, Sequence

import anyio
import pytest
from yarl import URL

from tests.support.api import Api, api_of, pause
from tests.support.archives import script, tar_of
from tests.support.leftovers import spooled
from tests.support.output_files import archive, download, paths, skipped
from tests.support.server import Server, running_server

MEBIBYTE = 1024 * 1024


PLOT = """
import os, struct, zlib
def chunk(kind, data):
    return struct.pack('!I', len(data)) + kind + data + struct.pack('!I', zlib.crc32(kind + data))
width, height = 64, 48
rows = b''.join(b'\\0' + bytes((x * 4) % 256 for x in range(width)) for y in range(height))
os.makedirs('out')
with open('out/plot.png', 'wb') as file:
    file.write(b'\\x89PNG\\r\\n\\x1a\\n')
    file.write(chunk(b'IHDR', struct.pack('!IIBBBBB', width, height, 8, 0, 0, 0, 0)))
    file.write(chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
print('drawn')
"""


async def test_an_output_file_is_returned_unchanged(api: Api) -> None:
    result = await api.run(PLOT, output_files=["out/*.png"])
    assert (result["status"], result["stdout"]) == ("completed", "drawn\n")
    (file,) = result["files"]
    data = await download(api, result["execution_id"], file["path"])
    assert (file["path"], file["size"]) == ("out/plot.png", len(data))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    length = int.from_bytes(data[33:37])
    assert len(zlib.decompress(data[41 : 41 + length])) == (width + 1) * height == 65 * 48
    assert not {"files_truncated", "files_skipped", "files_skipped_truncated"} & set(result)


async def test_an_async_run_returns_its_output_files(api: Api) -> None:
    execution_id = await api.accepted("open('a', 'w').write('later')", output_files=["/work/a"])
    result = await api.ended(execution_id)
    assert result["files"] == [{"path": "a", "size": 5}]
    assert await archive(api, execution_id) == {"a": b"later"}


async def test_without_patterns_the_result_has_no_files(api: Api) -> None:
    result = await api.run("open('a', 'w').write('x')")
    assert "files" not in result
    answer = await api.get(f"/api/v1/executions/{result['execution_id']}/files")
    assert (answer.status, answer.document["code"]) == (404, "not_found")
    assert "output_files" in answer.document["error"]


TREE = {
    "main.py": "import os; os.makedirs('empty/inner')",
    "a.txt": "a",
    "b.csv": "b",
    "deep/c.txt": "c",
    "deep/er/d.txt": "d",
    "deep/er/.hidden.txt": "h",
    ".cache/e.txt": "e",
}


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*.txt"], ["a.txt"]),
        (["**/*.txt"], ["a.txt", "deep/c.txt", "deep/er/d.txt"]),
        (["deep/**"], ["deep/c.txt", "deep/er/d.txt"]),
        (["**"], ["a.txt", "b.csv", "deep/c.txt", "deep/er/d.txt", "main.py"]),
        (["**/er/*"], ["deep/er/d.txt"]),
        (["d*/e?/[c-e].txt"], ["deep/er/d.txt"]),
        (["[!a].csv", "a.txt", "*.txt"], ["a.txt", "b.csv"]),
        ([".cache/*", "deep/er/.*"], [".cache/e.txt", "deep/er/.hidden.txt"]),
        (["empty", "empty/**", "empty/"], []),
        (["deep"], ["deep/c.txt", "deep/er/.hidden.txt", "deep/er/d.txt"]),
        (["deep/er/", "*.csv"], ["b.csv", "deep/er/.hidden.txt", "deep/er/d.txt"]),
        (["/work/"], [*TREE]),
        (["/work/deep/./c.txt"], ["deep/c.txt"]),
    ],
)
async def test_patterns_are_those_of_a_shell(api: Api, patterns: Sequence[str], found: Sequence[str]) -> None:
    result = (await api.sync(tar_of(TREE), {"output_files": patterns})).document
    assert paths(result) == sorted(found)
    assert await archive(api, result["execution_id"]) == {name: TREE[name].encode() for name in found}


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "a/../../x", "/work/../etc/*", "a\0b", "", "/"])
async def test_a_pattern_outside_of_work_is_refused(narrow: Api, pattern: str) -> None:
    before = await narrow.newest()
    answer = await narrow.sync(script(""), {"output_files": ["good", pattern]})
    assert (answer.status, answer.document["field"]) == (400, "output_files[1]")
    assert await narrow.newest() == before


@pytest.mark.parametrize(
    ("source", "config", "error_type"),
    [
        ("raise ValueError('after')", {}, "ValueError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {}, None),
        ("import time; time.sleep(60)", {"timeout_seconds": 0.5}, "timeout"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", {"memory_mb": 64}, "out_of_memory"),
        ("while True: print('x' * 10000)", {}, "output_limit"),
    ],
)
async def test_a_failed_run_returns_output_files_and_usage(
    api: Api, source: str, config: dict[str, float], error_type: str | None
) -> None:
    left = "open('left', 'w').write('behind')\n"
    result = await api.run(left + source, output_files=["left"], config=config)
    assert result.get("error_type") == error_type
    assert result["files"] == [{"path": "left", "size": 6}]
    assert await download(api, result["execution_id"], "left") == b"behind"
    assert result["usage"]["peak_memory_bytes"] > MEBIBYTE
    assert result["usage"]["cpu_seconds"] > 0


async def test_a_file_still_written_when_the_program_ends_is_consistent(api: Api) -> None:
    source = """
import subprocess, sys
child = "f = open('/work/log', 'wb', buffering=0)\\nwhile True: f.write(bytes(4096))"
subprocess.Popen([sys.executable, '-c', child])
while True:
    try:
        if open('/work/log', 'rb').read(1): break
    except FileNotFoundError: pass
"""
    result = await api.run(source, output_files=["log"], config={"disk_mb": 32})
    (file,) = result["files"]
    data = await download(api, result["execution_id"], "log")
    assert (len(data), set(data)) == (file["size"], {0})


async def test_a_killed_run_returns_no_output_files(api: Api) -> None:
    source = "import time; open('left', 'w'); print('up', flush=True); time.sleep(600)"
    execution_id = await api.accepted(source, output_files=["*"])
    await api.until_printed(execution_id, b"up")
    running = await api.get(f"/api/v1/executions/{execution_id}/files")
    assert (running.status, running.document["code"]) == (409, "not_ended")
    one = await api.get(f"/api/v1/executions/{execution_id}/files/left")
    assert (one.status, one.document["code"]) == (409, "not_ended")
    await api.kill(execution_id)
    result = await api.ended(execution_id)
    assert (result["status"], result["files"], result["files_truncated"]) == ("killed", [], True)
    assert result["files_skipped"] == [{"pattern": "*", "reason": "not_collected"}]
    assert await archive(api, execution_id) == {}


async def test_unknown_executions_and_files(api: Api) -> None:
    result = await api.run("open('a', 'w')", output_files=["a"])
    execution_id = result["execution_id"]
    for path in ("b", "a/b", "main.py", "%2e%2e/a", "a%00", "%2Fetc%2Fpasswd", "%ff"):
        url = URL(f"/api/v1/executions/{execution_id}/files/{path}", encoded=True)
        answer = await api.get(url)
        assert (answer.status, answer.document["code"]) == (404, "not_found"), path
    for unknown in ("exe_" + "0" * 32, "nonsense"):
        for end in ("files", "files/a", "files/"):
            assert (await api.get(f"/api/v1/executions/{unknown}/{end}")).status == 404
    assert await download(api, execution_id, "a") == b""
    async with api.session.get(f"/api/v1/executions/{execution_id}/files/a/") as response:
        assert response.status == 200


async def test_files_are_in_the_last_event_of_a_stream(api: Api) -> None:
    execution_id = await api.accepted("open('a', 'w')", output_files=["a", "b"])
    events = await api.all_events(execution_id)
    assert events[-1].data["files"] == [{"path": "a", "size": 0}]
    assert events[-1].data["files_skipped"] == [{"pattern": "b", "reason": "no_match"}]
    assert all("files" not in event.data for event in events[:-1])


@pytest.fixture(scope="module")
def tight_server(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that returns at most 1 MiB of files and deletes executions after one second. Fail if it logs a
    traceback."""
    settings = {"max_files_mb": "1", "cleanup_ttl": "1", "warm_pool": "1", "max_concurrent": "1"}
    with running_server(tmp_path_factory.mktemp("tight") / "data", image, **settings) as tight:
        yield tight
        assert "Traceback" not in tight.log.read_text()


@pytest.fixture
async def tight(tight_server: Server) -> AsyncIterator[Api]:
    async with api_of(tight_server.url) as client:
        yield client


HUGE = f"""
import os
open('a', 'wb').write(b'a' * {MEBIBYTE - 100})
open('b', 'wb').write(b'b' * 101)
open('c', 'wb').write(b'c' * 100)
open('d', 'wb').write(b'd')
open('e', 'wb')
os.truncate('e', 0); os.mkdir('s'); open('s/parse', 'wb'); os.truncate('s/parse', 1 << 40)
"""


async def test_a_file_over_the_size_limit_is_left_out(tight: Api) -> None:
    result = await tight.run(HUGE, output_files=["[a-e]", "s/*"])
    assert paths(result) == ["a", "c", "e"]
    assert (sum(file["size"] for file in result["files"]), result["files_truncated"]) == (MEBIBYTE, True)
    assert skipped(result) == {"b": "too_large", "d": "too_large", "s/parse": "too_large"}


async def test_the_number_of_output_files_is_limited(tight: Api) -> None:
    result = await tight.run("for n in range(1200): open(f'{n:04}', 'w')", output_files=["????"])
    assert paths(result) == [f"{n:04}" for n in range(1000)]
    assert (result["files_truncated"], skipped(result)) == (True, {"????": "too_many"})
    long = "import os\nfor n in range(200): open(f'{n:03}' + 'x' * 200, 'w')"
    result = await tight.run(long, output_files=["*x"])
    assert (len(result["files"]), result["files_truncated"]) == (32 * 1024 // 203, True)
    assert skipped(result) == {f"{n:03}{'x' * 200}": "too_many" for n in range(161, 200)}


HOSTILE = """
import os
for n in range(150_000):
    os.close(os.open(f'{n}', os.O_CREAT | os.O_WRONLY))
os.mkdir('z'); os.chdir('z')
for _ in range(3000):
    os.mkdir('d'); os.chdir('d')
open('treasure', 'w')
"""


async def test_a_hostile_tree_stops_only_the_search(tight: Api) -> None:
    result = await tight.run(
        HOSTILE, output_files=["**/treasure", "1", "z/*/*/nothing"], config={"disk_mb": 1024}
    )
    assert (result["status"], result["files_truncated"]) == ("completed", True)
    result = await tight.run(HOSTILE, output_files=["1", "149999"])
    assert paths(result) == ["1", "149999"]
    assert "files_truncated" not in result
    assert (await tight.run("print('next')"))["stdout"] == "next\n"


async def test_output_files_are_deleted_with_their_execution(tight: Api, tight_server: Server) -> None:
    result = await tight.run("open('a', 'wb').write(bytes(300_000))", output_files=["a"])
    blob = tight_server.data_dir / "blobs" / f"{result['execution_id']}+files"
    assert blob.stat().st_size == 300_000
    await until_gone(tight, result["execution_id"])
    assert not blob.exists()
    for path in ("files", "files/a"):
        assert (await tight.get(f"/api/v1/executions/{result['execution_id']}/{path}")).status == 404


async def test_no_spool_is_left_open(tight: Api, tight_server: Server) -> None:
    await tight.run(f"open('a', 'wb').write(bytes({MEBIBYTE}))", output_files=["a"], config={"disk_mb": 8})
    await tight.run(
        f"open('a', 'wb').write(bytes({2 * MEBIBYTE}))", output_files=["a"], config={"disk_mb": 8}
    )
    await tight.run("print()")
    assert spooled(tight_server) == set()


async def until_gone(api: Api, execution_id: str) -> None:
    """Poll until the execution has been deleted."""
    with anyio.fail_after(60):
        while (await api.get(f"/api/v1/executions/{execution_id}")).status == 200:
            await pause()
