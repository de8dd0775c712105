"""Test that a replica forwards requests for a session of another replica, with two servers in this process."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from yarl import URL

from pyexec.adapters import peers as peers_module
from pyexec.errors import NoSessionMemory, OwnedElsewhere
from pyexec.ports import REPLICA_HEADER, Caller, Member
from pyexec.services.sessions.cells import Cell
from pyexec.services.sessions.placement import SessionPlacement
from tests.events import finished
from tests.web.in_process import MEBIBYTE, active, ended
from tests.web.replica_pair import (
    BUFFERED_MAX,
    LARGE,
    PATH,
    SESSION,
    SPAN,
    TOKEN,
    Pair,
    WithoutMemory,
    running_pair,
)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path) as pair:
        yield pair


async def test_the_owner_answers_with_the_token_of_the_caller(pair: Pair) -> None:
    async with pair.http.get(PATH) as response:
        assert (response.status, (await response.json())["id"]) == (200, SESSION)
    [caller] = pair.owner.callers
    assert (caller.token, caller.tenant, caller.is_replica) == (TOKEN, "default", True)
    async with pair.http.head(PATH) as response:
        assert (response.status, await response.read()) == (200, b"")
    async with pair.http.get(PATH, headers={"Authorization": "Bearer wrong"}) as response:
        assert response.status == HTTPStatus.UNAUTHORIZED


async def test_a_cell_runs_at_the_owner_with_its_body_and_its_key(pair: Pair) -> None:
    pair.owner.started = await ended(pair.owner_web)
    body = {"code": "# " + 100_000 * "é" + "\n1", "timeout_seconds": 2}
    async with pair.http.post(f"{PATH}/eval", json=body, headers={"Idempotency-Key": "k"}) as response:
        result = await response.json()
    assert (response.status, result["execution_id"], result["stdout"]) == (
        200,
        pair.owner.started,
        "hello\n",
    )
    assert pair.owner.cells == [Cell(code=body["code"], timeout_seconds=2, key="k")]
    async with pair.http.post(f"{PATH}/eval/async", json=body) as response:
        assert response.status == HTTPStatus.ACCEPTED
        assert response.headers["Location"] == f"/api/v1/executions/{pair.owner.started}"


async def test_events_arrive_while_the_cell_runs(pair: Pair) -> None:
    run = await active(pair.owner_web)
    pair.owner.started = run
    headers = {"Accept": "text/event-stream"}
    with anyio.fail_after(10):
        async with pair.http.post(f"{PATH}/eval", json={"code": "1"}, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            received = b""
            while b"event: output" not in received:
                received += await response.content.readany()
            run.record([finished()])
            received += await response.content.read()
    assert received.rstrip().rpartition(b"\n\n")[2].startswith(b"event: finished")


async def test_a_client_that_disconnects_kills_its_cell(pair: Pair) -> None:
    run = await active(pair.owner_web)
    pair.owner.started = run
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_post, pair.http, f"{PATH}/eval", {"code": "1"}, name="client")
            await pair.owner.waiting.wait()
            tasks.cancel_scope.cancel()
        await run.kill_requested.wait()


async def test_a_client_that_disconnects_cancels_the_forwarded_request(pair: Pair) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_post, pair.http, f"{PATH}/restart", None, name="client")
            await pair.owner.waiting.wait()
            tasks.cancel_scope.cancel()
        await pair.owner.cancelled.wait()


async def _post(http: aiohttp.ClientSession, path: str, body: Any) -> None:
    async with http.post(path, json=body) as response:
        await response.read()


@pytest.mark.parametrize("sized", [True, False])
async def test_an_upload_is_streamed(pair: Pair, *, sized: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(LARGE // MEBIBYTE):
            yield bytes(MEBIBYTE)
            pair.owner.sent_by_client += MEBIBYTE

    headers = {"Content-Length": str(LARGE)} if sized else {}
    async with pair.http.put(f"{PATH}/files/a%20b/c.bin", data=body(), headers=headers) as response:
        assert response.status == HTTPStatus.NO_CONTENT
    assert pair.owner.received == LARGE
    assert pair.owner.most_buffered < BUFFERED_MAX


async def test_an_empty_upload_of_unknown_length_is_forwarded(pair: Pair) -> None:
    """`curl -T -` with an empty input sends the end of the body together with the headers."""
    headers = [f"Authorization: Bearer {TOKEN}", "Transfer-Encoding: chunked", "Connection: close"]
    lines = [f"PUT {PATH}/files/empty HTTP/1.1", "Host: test", *headers, "", "0", "", ""]
    answer = await pair.other_web.exchange(iter(["\r\n".join(lines).encode()]))
    assert answer.startswith(b"HTTP/1.1 204"), answer


async def test_a_path_that_is_not_utf_8_is_rejected(pair: Pair) -> None:
    """It would name another file: aiohttp leaves the percent signs in such a path."""
    for method in ("GET", "PUT", "DELETE"):
        url = URL(f"{pair.owner_web.url}{PATH}/files/a%ff", encoded=True)
        async with pair.http.request(method, url) as response:
            answer = await response.json()
        assert (response.status, answer["field"]) == (400, "path")


async def test_the_trace_of_the_caller_reaches_the_owner(pair: Pair) -> None:
    pair.owner.started = await ended(pair.owner_web)
    headers = {"traceparent": f"00-{32 * 'a'}-{16 * 'b'}-01", "tracestate": "vendor=value"}
    for route in ("eval", "eval/async"):
        async with pair.http.post(f"{PATH}/{route}", json={"code": "1"}, headers=headers) as response:
            assert {name: response.headers.get(name) for name in headers} == SPAN.headers()
    assert pair.owner.traces == 2 * [(headers["traceparent"], headers["tracestate"])]


async def test_a_download_is_streamed(pair: Pair) -> None:
    async with pair.http.get(f"{PATH}/files/out/big.bin") as response:
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
    assert (size, response.headers["Content-Length"]) == (LARGE, str(LARGE))
    assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''big.bin"
    assert response.headers.getall("X-Content-Type-Options") == ["nosniff"]


async def test_a_download_that_breaks_at_the_owner_is_a_broken_transfer(pair: Pair) -> None:
    pair.owner.breaks = True
    async with pair.http.get(f"{PATH}/files/big.bin") as response:
        assert response.status == HTTPStatus.OK
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_an_error_of_the_owner_is_the_answer(pair: Pair) -> None:
    pair.owner.closed = True
    async with pair.http.post(f"{PATH}/eval", json={"code": "1"}) as response:
        assert (response.status, (await response.json())["code"]) == (410, "session_closed")
    async with pair.http.post("/api/v1/sessions", json={}) as response:
        assert (response.status, (await response.json())["code"]) == (429, "too_many_sessions")
        assert int(response.headers["Retry-After"]) > 0


async def test_a_body_that_the_owner_rejects_has_an_answer(tmp_path: Path) -> None:
    async with running_pair(tmp_path, owner_limit=MEBIBYTE) as pair:
        for headers in ({}, {"Content-Length": str(8 * MEBIBYTE)}):
            body = _pieces(8)
            async with pair.http.put(f"{PATH}/files/big", data=body, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (413, "too_large")


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(MEBIBYTE)


async def test_a_session_is_opened_where_there_is_room(pair: Pair) -> None:
    form = aiohttp.FormData()
    form.add_field("metadata", "{}", content_type="application/json")
    form.add_field("tar", BytesIO(bytes(3 * MEBIBYTE)), content_type="application/x-tar", filename="a.tar")
    for body in ({"json": {}}, {"data": form}):
        async with pair.http.post("/api/v1/sessions", **body) as response:
            assert (response.status, response.headers["Location"]) == (201, PATH)
            assert (await response.json())["id"] == SESSION
    assert pair.owner.received == 3 * MEBIBYTE


async def test_a_session_is_opened_where_there_is_memory(tmp_path: Path) -> None:
    """A replica knows the memory that a session needs only after it has read the body."""
    async with running_pair(tmp_path, other_sessions=WithoutMemory()) as pair:
        body = {"config": {"memory_mb": 77}}
        async with pair.http.post("/api/v1/sessions", json=body) as response:
            assert (response.status, response.headers["Location"]) == (201, PATH)
        assert [request.config.memory_mb for request in pair.owner.requests] == [77]


@pytest.mark.parametrize(
    ("caller", "expected"),
    [(Caller(), OwnedElsewhere), (Caller(is_replica=True), NoSessionMemory), (None, NoSessionMemory)],
)
async def test_a_session_without_memory_is_forwarded_once(
    pair: Pair, caller: Caller | None, expected: type[Exception]
) -> None:
    placement = SessionPlacement(
        replica="rep_other",
        sessions_max=1,
        tenants=None,  # type: ignore[arg-type]
        membership=pair.members,  # type: ignore[arg-type]
        directory=_NoSessions(),  # type: ignore[arg-type]
    )
    with pytest.raises(expected) as caught:
        async with placement.forward_if_no_memory(caller):
            raise NoSessionMemory("full")
    assert caught.value.__cause__ is not caught.value


class _NoSessions:
    async def all_open(self) -> list[Any]:
        return []


async def test_an_idempotency_key_for_a_new_session_is_refused(pair: Pair) -> None:
    """It would have no effect: a second request opens a second session."""
    async with pair.http.post("/api/v1/sessions", json={}, headers={"Idempotency-Key": "k"}) as response:
        answer = await response.json()
    assert (response.status, answer["field"]) == (400, "Idempotency-Key")
    assert pair.owner.received == 0


async def test_a_forwarded_request_is_not_forwarded_again(pair: Pair) -> None:
    async with pair.http.get(PATH, headers={REPLICA_HEADER: "rep_x"}) as response:
        answer = await response.json()
    assert (response.status, answer["code"]) == (503, "unavailable")
    assert "no replica serves the session" in answer["error"]


async def test_an_owner_that_cannot_be_reached_is_a_503(pair: Pair) -> None:
    member = pair.members.found.pop("rep_owner")
    async with pair.http.get(PATH) as response:
        assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
    pair.members.found["rep_owner"] = Member(
        replica="rep_owner", engine="e", address="http://127.0.0.1:9", slots=1, version=member.version
    )
    async with pair.http.put(f"{PATH}/files/a", data=b"1") as response:
        assert response.status == HTTPStatus.SERVICE_UNAVAILABLE


async def test_an_owner_that_loses_its_membership_ends_the_request(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended process keeps its connections open, and never answers."""
    monkeypatch.setattr(peers_module, "MEMBER_CHECK_SECONDS", 0.02)
    answers: list[tuple[int, str]] = []

    async def restart() -> None:
        async with pair.http.post(f"{PATH}/restart") as response:
            answers.append((response.status, (await response.json())["error"]))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restart, name="client")
            await pair.owner.waiting.wait()
            pair.members.found.clear()
    assert answers == [(503, "rep_owner stopped responding while it handled the request")]


async def test_a_body_that_stalls_is_an_error_of_the_client(pair: Pair) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"1"
        await anyio.sleep(5)

    headers = {"Content-Length": "10"}
    async with pair.http.put(f"{PATH}/files/a", data=body(), headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, "upload_stalled")
