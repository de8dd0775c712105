"""Test bodies that are malformed, too large or cut short: the 4xx response says so, and nothing is left behind."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

import pytest

from tests.support.api import Api, form
from tests.support.archives import script
from tests.support.cases import sampled
from tests.support.leftovers import check_works, remains, spooled
from tests.support.server import Server

MEBIBYTE = 1024 * 1024
HELLO = script("print('hello')")
BOUNDARY = "b0undary"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
ROUTES = ["/api/v1/exec/sync", "/api/v1/exec/async"]


def part(name: str, content: bytes, *headers: str) -> bytes:
    lines = [f'Content-Disposition: form-data; name="{name}"', *headers, "", ""]
    return f"--{BOUNDARY}\r\n".encode() + "\r\n".join(lines).encode() + content + b"\r\n"


CLOSE = f"--{BOUNDARY}--\r\n".encode()
WHOLE = part("metadata", b"{}") + part("tar", HELLO) + CLOSE

BAD_BODIES: dict[str, tuple[dict[str, str], bytes, int, Sequence[str]]] = {
    "JSON": ({"Content-Type": "application/json"}, b"{}", 400, ("multipart/form-data", "tar")),
    "no boundary": ({"Content-Type": "multipart/form-data"}, b"", 400, ("multipart",)),
    "a boundary of 200": (
        {"Content-Type": f"multipart/form-data; boundary={'b' * 200}"},
        b"",
        400,
        ("multipart",),
    ),
    "an empty body": (MULTIPART, b"", 400, ("malformed or cut short",)),
    "no parts": (MULTIPART, CLOSE, 400, ("tar",)),
    "metadata alone": (MULTIPART, part("metadata", b"{}") + CLOSE, 400, ("no part named tar",)),
    "an unknown part": (MULTIPART, part("file", HELLO) + CLOSE, 400, ("'file'", "metadata and tar")),
    "a third part": (
        MULTIPART,
        part("metadata", b"{}") + part("tar", HELLO) + part("more", b"") + CLOSE,
        400,
        ("'more'", "metadata and tar"),
    ),
    "two archives": (
        MULTIPART,
        part("metadata", b"{}") + part("tar", HELLO) + part("tar", HELLO) + CLOSE,
        400,
        ("two parts named tar",),
    ),
    "two archives first": (MULTIPART, part("tar", HELLO) + part("tar", HELLO) + CLOSE, 400, ("two parts",)),
    "two metadata": (
        MULTIPART,
        part("metadata", b"{}") + part("metadata", b"{}") + CLOSE,
        400,
        ("two parts named metadata",),
    ),
    "a part without a name": (
        MULTIPART,
        f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n".encode() + CLOSE,
        400,
        ("metadata and tar",),
    ),
    "a part header of nonsense": (
        MULTIPART,
        f"--{BOUNDARY}\r\n\x00nonsense\r\n\r\nx\r\n".encode() + CLOSE,
        400,
        ("malformed",),
    ),
    "a part header of 100 KB": (
        MULTIPART,
        part("tar", HELLO, f"X: {'x' * 100_000}") + CLOSE,
        400,
        ("malformed",),
    ),
    "another multipart inside": (
        MULTIPART,
        part("tar", b"--i\r\n\r\n--i--", "Content-Type: multipart/mixed; boundary=i") + CLOSE,
        400,
        ("metadata and tar",),
    ),
    "an archive that stops": (MULTIPART, WHOLE[: len(WHOLE) // 2], 400, ("malformed or cut short",)),
    "no closing boundary": (MULTIPART, WHOLE[: -len(CLOSE)], 400, ("malformed or cut short",)),
    "metadata that stops": (MULTIPART, part("metadata", b'{"entry')[:-2], 400, ("metadata is not JSON",)),
    "packed by gzip": (MULTIPART | {"Content-Encoding": "gzip"}, WHOLE, 415, ("Content-Encoding gzip",)),
    "packed by nonsense": (MULTIPART | {"Content-Encoding": "x"}, WHOLE, 415, ("Content-Encoding x",)),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_bad_body_is_refused_and_leaves_nothing(
    narrow: Api, narrow_server: Server, route: str, name: str
) -> None:
    headers, body, status, words = BAD_BODIES[name]
    before = await remains(narrow_server, narrow)
    answer = await narrow.request("POST", route, data=body, headers=headers, auto_decompress=False)
    assert answer.status == status, answer.document
    assert answer.document["code"]
    for word in words:
        assert word in answer.document["error"]
    assert await remains(narrow_server, narrow) == before


@pytest.mark.parametrize("length", ["7000000", "1", "x"])
async def test_content_length_of_a_part_is_ignored(narrow: Api, length: str) -> None:
    """RFC 7578 §4.8: other headers of a part are ignored; its boundary ends it."""
    body = part("metadata", b"{}", f"Content-Length: {length}") + part("tar", HELLO) + CLOSE
    answer = await narrow.request("POST", "/api/v1/exec/sync", data=body, headers=MULTIPART)
    assert (answer.status, answer.document["stdout"]) == (200, "hello\n")


@pytest.mark.parametrize("order", [("metadata", "tar"), ("tar", "metadata")])
@pytest.mark.parametrize("route", ROUTES)
@sampled("chunked", [False, True], every=2)
async def test_a_body_over_the_limit_is_too_large(
    narrow: Api, narrow_server: Server, route: str, order: Sequence[str], chunked: bool
) -> None:
    before = await remains(narrow_server, narrow)
    archive = script("#" * (65 * MEBIBYTE))
    body = form(_pieces(archive) if chunked else archive, {}, order=order)
    answer = await narrow.request("POST", route, data=body)
    assert (answer.status, answer.document["code"]) == (413, "too_large")
    assert str(64 * MEBIBYTE) in answer.document["error"]
    assert await remains(narrow_server, narrow) == before


@pytest.mark.parametrize("route", ROUTES)
async def test_a_stalled_upload_is_refused(narrow: Api, narrow_server: Server, route: str) -> None:
    before = await remains(narrow_server, narrow)
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(WHOLE)}\r\n"
    reader, writer = await _connect(narrow_server)
    writer.write(
        f"{head}Content-Type: {MULTIPART['Content-Type']}\r\n\r\n".encode() + WHOLE[: len(WHOLE) // 2]
    )
    answer = await reader.readuntil(b"}")
    writer.close()
    assert b" 400 " in answer.splitlines()[0]
    assert b"upload_stalled" in answer
    assert b"no data received for 2 s" in answer
    assert await remains(narrow_server, narrow) == before


@pytest.mark.full
async def test_an_upload_that_trickles_delays_other_callers_for_a_bounded_time(
    narrow: Api, narrow_server: Server
) -> None:
    body = part("metadata", b"{}") + part("tar", script("#" * MEBIBYTE))[: MEBIBYTE // 4]
    head = f"POST {ROUTES[0]} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * MEBIBYTE}\r\n"
    reader, writer = await _connect(narrow_server)
    writer.write(f"{head}Content-Type: {MULTIPART['Content-Type']}\r\n\r\n".encode() + body)

    async def trickle() -> None:
        while True:
            writer.write(b"#" * 200)
            await asyncio.sleep(1)

    trickling = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(100):
            await narrow.run("")
            assert b"upload_too_slow" in await reader.readuntil(b"}")
    finally:
        trickling.cancel()
        writer.close()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("order", ["metadata first", "tar first"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_disconnect_during_the_upload_leaves_nothing(
    narrow: Api, narrow_server: Server, route: str, order: str, how: str
) -> None:
    before = await remains(narrow_server, narrow)
    first, second = part("metadata", b"{}"), part("tar", HELLO)
    body = first + second if order == "metadata first" else second + first
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + len(CLOSE)}\r\n"
    _, writer = await _connect(narrow_server)
    writer.write(f"{head}Content-Type: {MULTIPART['Content-Type']}\r\n\r\n".encode() + body)
    await writer.drain()
    if how == "reset":
        writer.transport.abort()
    writer.close()
    await check_works(narrow)
    assert spooled(narrow_server) == set()
    assert (await remains(narrow_server, narrow)).files == before.files
    listed = (await narrow.get("/api/v1/executions?limit=2")).document["executions"]
    assert [run["execution_id"] for run in listed[1:]] == ([before.newest] if before.newest else [])


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "code", ("either code or files", '{"code": "print(1)"}', '"name": "main.py"')),
        (
            {"code": "1", "files": [{"name": "a.py", "content": ""}]},
            "code",
            ("either code or files", "not both"),
        ),
        ({"files": []}, "code", ("either code or files",)),
        ({"files": [{"name": "a.py"}]}, "files[0].content", ("missing",)),
        ({"files": [{"name": "a.py", "content": 7}]}, "files[0].content", ("string", "number")),
        ({"files": [{"name": "a.py", "content": "", "mode": 1}]}, "files[0].mode", ("unknown", "name")),
        (
            {"files": [{"name": n, "content": ""} for n in ("a.py", "b.py", "a.py")]},
            "files[2].name",
            ("twice",),
        ),
        ({"files": [{"name": "../a.py", "content": ""}]}, "files[0].name", ("../a.py",)),
        ({"files": [{"name": "/a.py", "content": ""}]}, "files[0].name", ("'/a.py' is an absolute path",)),
        ({"files": [{"name": n, "content": ""} for n in ("a", "a/b.py")]}, "files", ("is a file",)),
        ({"files": [{"name": "a.py\0", "content": ""}]}, "files[0].name", ("NUL",)),
        ({"files": [{"name": "", "content": ""}]}, "files[0].name", ("empty",)),
        ({"files": [{"name": "d/", "content": ""}]}, "files[0].name", ("d/",)),
        ({"files": [{"name": "a.txt", "content": ""}]}, "entrypoint", (".py",)),
        (
            {"code": "1", "docker_image": "x", "python_version": "3.12"},
            "python_version",
            ("either", "not both"),
        ),
        ({"code": "1", "python_version": "2.7"}, "python_version", ("2.7", "3.12")),
        *(
            ({"code": "1", "python_version": version}, "python_version", ("3.12", "at least 3.8"))
            for version in (
                "3",
                "3.7",
                "3.",
                "3.x",
                "3.12.1",
                "3.012",
                "3.100",
                "4.0",
                "3.１２",
                " 3.12",
                "3.12\n",
                "",
            )
        ),
        ({"code": "1", "cod": 1}, "cod", ("unknown", "code")),
        ({"code": None}, "code", ("either code or files",)),
        ({"code": "1", "config": {"memory_mb": 1}}, "config.memory_mb", ("at least 16",)),
        ([], "body", ("object", "list")),
    ],
)
async def test_a_bad_eval_is_refused_and_leaves_nothing(
    narrow: Api, narrow_server: Server, body: object, field: str, words: Sequence[str]
) -> None:
    before = await remains(narrow_server, narrow)
    answer = await narrow.eval(body)
    assert (answer.status, answer.document.get("field")) == (400, field), answer.document
    for word in words:
        assert word in answer.document["error"]
    assert await remains(narrow_server, narrow) == before


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "UTF-8"),
        (b'"' + b"x" * MEBIBYTE + b'"', 413, "1048576 bytes"),
        (b'{"code": "1", "code": "2"}', 400, "'code' occurs more than once"),
    ],
)
async def test_an_invalid_eval_body_is_refused(narrow: Api, body: bytes, status: int, words: str) -> None:
    answer = await narrow.request("POST", "/api/v1/eval", data=io.BytesIO(body))
    assert (answer.status, words in answer.document["error"]) == (status, True), answer.document


@pytest.mark.parametrize("headers", [{"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 256}])
async def test_a_bad_key_is_refused(narrow: Api, headers: dict[str, str]) -> None:
    for request in (narrow.sync(HELLO, headers=headers), narrow.submit(HELLO, headers=headers)):
        answer = await request
        assert (answer.status, answer.document["field"]) == (400, "Idempotency-Key")
        assert "1 to 255" in answer.document["error"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"POST /api/v1/eval", b"Idempotency-Key"),
        (b"GET /api/v1/executions/exe_00000000000000000000000000000000/events", b"Last-Event-ID"),
    ],
)
async def test_a_header_with_two_values_is_refused(narrow_server: Server, line: bytes, name: bytes) -> None:
    reader, writer = await _connect(narrow_server)
    headers = b"Host: x\r\nConnection: close\r\n%s: 1.0\r\n%s: 2.0\r\n" % (name, name)
    writer.write(line + b" HTTP/1.1\r\n" + headers + b'Content-Length: 12\r\n\r\n{"code":"1"}')
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the header %s appears more than once" % name in answer


@pytest.mark.parametrize(
    "header", [b"Idempotency-Key: \xff\xfe", b"Authorization: Bearer \xff", b"Accept: \xff"]
)
async def test_headers_that_are_not_utf8_cause_no_server_error(narrow_server: Server, header: bytes) -> None:
    reader, writer = await _connect(narrow_server)
    head = (
        f"POST /api/v1/exec/sync HTTP/1.1\r\nHost: x\r\nContent-Length: {len(WHOLE)}\r\nConnection: close\r\n"
    )
    writer.write(
        head.encode() + header + f"\r\nContent-Type: {MULTIPART['Content-Type']}\r\n\r\n".encode() + WHOLE
    )
    answer = await reader.read()
    writer.close()
    assert answer.split(b" ")[1] in (b"200", b"400"), answer


async def _connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(server.url)
    return await asyncio.open_connection(address.hostname, address.port)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 256 * 1024):
        yield data[start : start + 256 * 1024]
