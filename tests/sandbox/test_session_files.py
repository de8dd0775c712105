"""Test transfers of files to and from the sandbox of an interpreter session, with a real engine."""

from collections.abc import AsyncIterator

import anyio
import pytest

from pyexec.domain.output_files import FileLimits
from pyexec.errors import SessionFileError
from pyexec.sandbox.protocol import FileChunk, FileHeader, FilesCollected
from pyexec.sandbox.session_protocol import file_data, json_line, line
from tests.support.session_sandboxes import Client, SharedSession, connected_engine, serving

LIMITS = FileLimits(bytes_max=100 * 2**20)


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(
    session: Client, pattern: str, *, only_names: bool = False
) -> tuple[dict[str, int], bytes, FilesCollected]:
    names, content, last = {}, bytearray(), None
    read = session.sandbox.list_files if only_names else session.sandbox.read_files
    async for frame in read((pattern,), LIMITS):
        if isinstance(frame, FileHeader):
            names[frame.path] = frame.size
        elif isinstance(frame, FileChunk):
            content += frame.data
        elif isinstance(frame, FilesCollected):
            last = frame
    assert last is not None
    return names, bytes(content), last


async def test_files_are_written_read_listed_and_deleted(session: Client) -> None:
    data = bytes(range(256)) * 40_000
    await session.sandbox.write_file("data/in.bin", chunks(data[:1000], data[1000:]))
    assert (await session.run("len(open('/work/data/in.bin', 'rb').read())")).result == str(len(data))
    assert await read(session, "data/in.bin") == ({"data/in.bin": len(data)}, data, FilesCollected(False))
    assert (await read(session, "data/*", only_names=True))[:2] == ({"data/in.bin": len(data)}, b"")
    await session.sandbox.delete_file("data/in.bin")
    with pytest.raises(SessionFileError) as caught:
        await session.sandbox.delete_file("data/in.bin")
    assert caught.value.code == "not_found"
    await session.run("!rm -r /work/data")


async def test_transfers_are_no_processor_time_of_a_cell(session: Client) -> None:
    """Transfers take time of the supervisor, which the engine counts, too. The server ends a cell by that count."""
    before = await session.sandbox.cpu_seconds()
    for _ in range(6):
        await session.sandbox.write_file("large", chunks(*10 * [bytes(2**20)]))
        assert (await read(session, "large"))[0] == {"large": 10 * 2**20}
    after = await session.sandbox.cpu_seconds()
    await session.sandbox.delete_file("large")
    assert before is not None
    assert after is not None
    assert after < before


async def test_a_replica_adopts_a_session_in_the_middle_of_an_upload(shared: SharedSession) -> None:
    async with connected_engine() as engine:
        first = shared.adopted(engine)
        async with serving(first):
            forged = b"\n" + json_line("SYNC", 10**12, token="forged")
            payload, data = file_data(1, 0, forged * 2000)
            begun = line("DATA", shared.generation, payload, data)[:-1000]
            await first._connection.write(json_line("WRITE", shared.generation, id=1, path="begun") + begun)
        second = shared.adopted(engine)
        async with serving(second) as client:
            await second.write_file("new", chunks(b"new"))
            assert await read(client, "*") == ({"new": 3}, b"new", FilesCollected(False))
            await second.delete_file("new")
            assert (await client.run("6 * 7")).result == "42"


async def test_an_upload_that_is_cancelled_cancels_no_other_one(session: Client) -> None:
    """All of them wait until the sandbox reads again."""
    ended: list[str] = []
    scope = anyio.CancelScope()

    async def write(name: str, scope: anyio.CancelScope | None = None) -> None:
        with scope or anyio.CancelScope():
            await session.sandbox.write_file(name, chunks(bytes(5 * 2**20)))
            ended.append(name)

    async with anyio.create_task_group() as tasks:
        await anyio.run_process(["docker", "pause", session.sandbox.container_id])
        try:
            for name, each in (("cancelled", scope), ("first", None), ("second", None)):
                tasks.start_soon(write, name, each)
                await anyio.sleep(0.1)
            scope.cancel()
            await anyio.sleep(0.1)
            tasks.start_soon(write, "later")
            await anyio.sleep(0.1)
        finally:
            await anyio.run_process(["docker", "unpause", session.sandbox.container_id])
    assert sorted(ended) == ["first", "later", "second"]
    for name in ended:
        await session.sandbox.delete_file(name)


async def test_transfers_run_at_the_same_time(session: Client) -> None:
    contents = {f"file{number}": bytes([number]) * 2**20 * (number + 1) for number in range(5)}

    async def copy(name: str, content: bytes) -> None:
        await session.sandbox.write_file(name, chunks(content[:5], content[5:]))
        assert (await read(session, name))[:2] == ({name: len(content)}, content)
        await session.sandbox.delete_file(name)

    async with anyio.create_task_group() as tasks:
        for name, content in contents.items():
            tasks.start_soon(copy, name, content)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../x", "invalid_path"),
        ("/etc/x", "invalid_path"),
        ("a/./b", "invalid_path"),
        ("out/x", "not_a_directory"),
        ("folder", "is_directory"),
    ],
)
async def test_no_path_leaves_work(session: Client, path: str, code: str) -> None:
    await session.run(
        "import os\nos.path.lexists('/work/out') or os.symlink('/tmp', '/work/out')\n"
        "os.makedirs('/work/folder', exist_ok=True)"
    )
    with pytest.raises(SessionFileError) as caught:
        await session.sandbox.write_file(path, chunks(b"x"))
    assert caught.value.code == code
    await session.run("!rm -rf /work/out /work/folder")


async def test_links_and_pipes_are_replaced_and_never_followed(session: Client) -> None:
    await session.run("import os; os.mkfifo('/work/pipe'); os.symlink('/tmp/elsewhere', '/work/link')")
    for name in ("pipe", "link"):
        with anyio.fail_after(5):
            assert (await read(session, name))[1] == b""
            await session.sandbox.write_file(name, chunks(b"new"))
            assert (await read(session, name))[1] == b"new"
    assert (await session.run("os.path.exists('/tmp/elsewhere')")).result == "False"
    await session.run("!rm /work/pipe /work/link")
