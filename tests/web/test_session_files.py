"""Test the files of interpreter sessions over HTTP, on a real server with real sandboxes."""

import io
import tarfile
from collections.abc import AsyncIterator

import aiohttp
import anyio
import pytest
from yarl import URL

from tests.support.api import Api
from tests.support.sessions import Session, opened

MEBIBYTE = 1024 * 1024


async def test_files_are_written_read_listed_and_deleted(shared: Session) -> None:
    data = bytes(range(256)) * 4096 * 8
    assert (await shared.put("in/table%20one.bin", data)).status == 204
    assert (await shared.put("in/empty", b"")).status == 204
    code = "import os, pathlib\nos.path.getsize('in/table one.bin'), pathlib.Path('in/empty').read_bytes()"
    assert (await shared.result(code))["result"] == f"({len(data)}, b'')"
    assert await shared.read("in/table%20one.bin") == (200, data)
    assert await shared.files("in/*") == ["in/empty", "in/table one.bin"]
    assert await shared.files("*.csv") == []
    tar_headers = {"Accept": "application/x-tar"}
    async with shared.api.session.get(f"{shared.path}/files?glob=in", headers=tar_headers) as response:
        assert response.content_type == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(await response.read())) as archive:
            assert sorted(archive.getnames()) == ["in/empty", "in/table one.bin"]
    assert (await shared.put("in/empty", b"replaced")).status == 204
    assert await shared.read("in/empty") == (200, b"replaced")
    assert (await shared.api.request("DELETE", f"{shared.path}/files/in/empty")).status == 204
    assert (await shared.read("in/empty"))[0] == 404
    assert (await shared.api.request("DELETE", f"{shared.path}/files/in/empty")).status == 404


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("PUT", "Content-Range", "bytes 2-3/4"),
        ("PUT", "If-None-Match", "*"),
        ("PUT", "Content-Type", "multipart/form-data; boundary=x"),
        ("DELETE", "If-Match", '"1"'),
    ],
)
async def test_headers_that_restrict_a_change_are_rejected(
    shared: Session, method: str, name: str, value: str
) -> None:
    assert (await shared.put("kept", b"kept")).status == 204
    url = f"{shared.path}/files/kept"
    answer = await shared.api.request(method, url, data=b"xx", headers={name: value})
    assert (answer.status, answer.document["field"]) == (400, name)
    assert await shared.read("kept") == (200, b"kept")


async def test_an_upload_that_does_not_fit_is_rejected_before_its_end(api: Api, session_image: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(MEBIBYTE)
        await anyio.sleep_forever()

    config = {"memory_mb": 128, "disk_mb": 4}
    async with opened(api, docker_image=session_image, config=config) as session:
        with anyio.fail_after(20):
            assert (await session.put("large", chunks())).status == 413


async def test_files_are_written_from_a_stream_and_while_a_cell_runs(shared: Session) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(24):
            yield bytes(MEBIBYTE)

    running = await shared.submitted("import time\ntime.sleep(60)")
    await shared.until_started(running)
    assert (await shared.put("big.bin", chunks())).status == 204
    await shared.post("interrupt")
    assert (await shared.result("import os\nos.path.getsize('big.bin')"))["result"] == str(24 * MEBIBYTE)
    async with shared.api.session.get(f"{shared.path}/files/big.bin") as response:
        assert response.headers["Content-Length"] == str(24 * MEBIBYTE)
        assert len(await response.read()) == 24 * MEBIBYTE


async def test_clients_that_stop_reading_delay_no_other_transfer_and_no_cell(session: Session) -> None:
    size = 48 * MEBIBYTE  # more than all buffers on the way
    code = f"with open('large', 'wb') as file: file.truncate({size})\nopen('small', 'w').write('1')"
    assert (await session.result(code))["exit_code"] == 0
    url = f"{session.path}/files/large"
    async with session.api.session.get(url) as stalled, session.api.session.get(url) as abandoned:
        for response in (stalled, abandoned):
            await response.content.readexactly(1)
        with anyio.fail_after(20):
            assert (await session.put("new", bytes(MEBIBYTE))).status == 204
            assert await session.read("new") == (200, bytes(MEBIBYTE))
            assert await session.files("*") == ["large", "new", "small"]
            assert (await session.api.request("DELETE", f"{session.path}/files/small")).status == 204
            assert (await session.result("6 * 7"))["result"] == "42"
        assert len(await stalled.content.read()) == size - 1
        abandoned.close()


async def test_a_file_that_changes_while_it_is_read_is_no_complete_response(shared: Session) -> None:
    await shared.result(f"file = open('f', 'wb')\nfile.truncate({64 * MEBIBYTE})")
    for code, is_complete in (("file.truncate(2 ** 27)", True), ("file.truncate(0)", False)):
        async with shared.api.session.get(f"{shared.path}/files/f") as response:
            size = len(await response.content.readexactly(1))
            assert (await shared.result(code))["exit_code"] == 0
            try:
                while chunk := await response.content.readany():
                    size += len(chunk)
            except aiohttp.ClientPayloadError:
                assert not is_complete
        assert (size == response.content_length) is is_complete
    assert (await shared.result("6 * 7"))["result"] == "42"


@pytest.mark.parametrize(
    "path", ["%2e%2e/x", "a/%2e%2e/%2e%2e/x", "%2fetc/x", "a%00b", 5000 * "x", "a%0ab", "a%0db", "a%C2%85b"]
)
async def test_a_path_outside_of_work_or_with_control_characters_is_rejected(
    shared: Session, path: str
) -> None:
    url = URL(f"{shared.api.url}{shared.path}/files/{path}", encoded=True)
    for method in ("GET", "PUT", "DELETE"):
        async with shared.api.session.request(
            method, url, data=b"1" if method == "PUT" else None
        ) as response:
            assert response.status in (400, 404), await response.text()
            assert response.status == 400 or method != "PUT"


async def test_a_name_that_is_too_long_is_the_fault_of_the_path(shared: Session) -> None:
    answer = await shared.put("a" * 256, b"1")
    assert (answer.status, answer.document["field"]) == (400, "path")
    assert "File name too long" in answer.document["error"]
    assert ".part" not in answer.document["error"]


async def test_many_files_come_through_a_slow_reader(session: Session) -> None:
    """More announcements than fit into the window of a transfer."""
    await session.result("for i in range(4200): open(f'f{i:04}', 'w').close()")
    assert len(await session.files("f*")) == 4200
    headers = {"Accept": "application/x-tar"}
    async with session.api.session.get(f"{session.path}/files", headers=headers) as response:
        with tarfile.open(fileobj=io.BytesIO(await response.read())) as archive:
            assert len(archive.getnames()) == 4200
    await session.result("import os\nos.chmod('f0000', 0)")
    refused = await session.api.get(f"{session.path}/files", headers=headers)
    assert refused.status == 400
    assert "'f0000' (unreadable)" in refused.document["error"]
    alone = await session.api.get(f"{session.path}/files/f0000")
    assert (alone.status, alone.document["error"]) == (400, "'f0000' cannot be returned (unreadable)")


async def test_a_sparse_file_larger_than_all_downloads_is_named(session: Session) -> None:
    await session.result("open('sparse', 'wb').truncate(2**42)\nopen('small', 'w').close()")
    for path in ("", "/sparse"):
        refused = await session.api.get(
            f"{session.path}/files{path}", headers={"Accept": "application/x-tar"}
        )
        assert refused.status == 400
        assert "'sparse'" in refused.document["error"]
        assert "(too_large)" in refused.document["error"]


async def test_links_and_devices_lead_nowhere(shared: Session) -> None:
    code = (
        "import os\nos.symlink('/etc', 'conf')\nos.symlink('/etc/passwd', 'secret')\n"
        "os.mkfifo('pipe')\nos.symlink('loop', 'loop')"
    )
    assert (await shared.result(code))["exit_code"] == 0
    for path in ("secret", "conf/passwd", "pipe", "loop"):
        assert (await shared.read(path))[0] == 404
    await shared.result("os.makedirs('sub')\nopen('sub/a', 'w').write('in')\nos.symlink('sub', 'way')")
    assert await shared.read("way/a") == (200, b"in")
    for path in ("conf/new", "way/new"):
        assert (await shared.put(path, b"1")).status == 400
    assert (await shared.put("secret", b"1")).status in (204, 400)
    assert (await shared.result("open('/etc/passwd').read() != '1'"))["result"] == "True"
    assert await shared.files("pipe") == []
    bad = await shared.api.get(f"{shared.path}/files", params={"glob": "../*"})
    assert (bad.status, bad.document["field"]) == (400, "glob")
