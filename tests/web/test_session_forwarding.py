"""Test that a replica forwards requests for a session of another replica, with two servers in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from attrs import define, field

from pyexec.adapters import peers as peers_module
from pyexec.adapters.peers import HttpPeers
from pyexec.domain.session import fold_session
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.session_view import SessionView, view_of
from pyexec.errors import OwnedElsewhere, SessionEnded, TooManySessions, Unavailable
from pyexec.ports import REPLICA_HEADER, Caller, Member, Members
from pyexec.services.active_runs import Run
from pyexec.services.downloads import Download
from pyexec.services.sessions.cells import Cell
from tests.events import finished, opened
from tests.web.in_process import MEBIBYTE, Web, active, ended, running_web

SESSION = "ses_" + 32 * "0"
PATH = f"/api/v1/sessions/{SESSION}"
TOKEN = "a-long-enough-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LARGE = 64 * MEBIBYTE
BUFFERED_MAX = LARGE // 2
"""More than the socket buffers of both connections together."""


def view() -> SessionView:
    return view_of(fold_session(SESSION, [opened()]))


class Elsewhere:
    """The service of a replica that owns no session: every method raises `OwnedElsewhere`."""

    def __getattr__(self, name: str) -> Any:
        async def method(*_: Any, **__: Any) -> None:
            raise OwnedElsewhere("rep_owner")

        return method


@define
class Owner:
    """The service of the owner. It records the requests that arrive."""

    cells: list[Cell] = field(factory=list)
    callers: list[Caller] = field(factory=list)
    started: Run | str = ""
    received: int = 0
    sent_by_client: int = 0
    most_buffered: int = 0
    breaks: bool = False
    closed: bool = False
    waiting: anyio.Event = field(factory=anyio.Event)
    cancelled: anyio.Event = field(factory=anyio.Event)

    async def locate(self, session_id: str, caller: Caller) -> None:
        assert session_id == SESSION
        self.callers.append(caller)
        if self.closed:
            raise SessionEnded(f"session {session_id} is closed (idle); open a new one")

    async def place(self, caller: Caller, tenant: str) -> None:
        if self.closed:
            raise TooManySessions("16 sessions are open")

    async def open(
        self, request: SessionRequest, archive: AsyncIterator[bytes] | None, caller: Caller, tenant: str
    ) -> SessionView:
        async for chunk in archive or _nothing():
            self.received += len(chunk)
        return view()

    async def get(self, session_id: str, caller: Caller) -> SessionView:
        self.callers.append(caller)
        return view()

    async def evaluate(self, session_id: str, cell: Cell, caller: Caller) -> Run | str:
        self.cells.append(cell)
        self.waiting.set()
        return self.started

    async def restart(self, session_id: str, caller: Caller) -> SessionView:
        self.waiting.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        raise AssertionError

    async def write_file(
        self, session_id: str, path: str, chunks: AsyncIterator[bytes], caller: Caller
    ) -> None:
        async for chunk in chunks:
            if not self.received:
                await anyio.sleep(0.3)
            self.received += len(chunk)
            self.most_buffered = max(self.most_buffered, self.sent_by_client - self.received)

    async def read_file(self, session_id: str, path: str, caller: Caller) -> Download:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(LARGE // MEBIBYTE):
                yield bytes(MEBIBYTE)
                if self.breaks:
                    raise Unavailable("the sandbox is gone")

        return Download(size=LARGE, chunks=chunks())


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk


@define
class KnownMembers:
    """The members, by replica name."""

    found: dict[str, Member] = field(factory=dict)

    async def members(self, since: int | None = None) -> Members:
        return Members(version=1, members=dict(self.found))


@define
class Pair:
    """The owner of a session, and another replica, whose client is `http`."""

    owner: Owner
    owner_web: Web
    members: KnownMembers
    http: aiohttp.ClientSession


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path) as pair:
        yield pair


@asynccontextmanager
async def running_pair(directory: Path, owner_limit: int = 2 * LARGE) -> AsyncIterator[Pair]:
    for name in ("owner", "other"):
        (directory / name).mkdir()
    owner, members = Owner(), KnownMembers()
    peers = HttpPeers(members, "rep_other")  # type: ignore[arg-type]  only `members` is used
    async with (
        running_web(
            directory / "owner",
            submissions=_Open(),
            sessions=owner,
            upload_bytes_max=owner_limit,
            api_tokens=TOKEN,
        ) as owner_web,
        running_web(directory / "other", sessions=Elsewhere(), peers=peers, api_tokens=TOKEN) as other,
        aiohttp.ClientSession(other.url, headers=BEARER) as http,
    ):
        members.found["rep_owner"] = Member(
            replica="rep_owner", engine="e", address=owner_web.url, slots=1, version="1"
        )
        yield Pair(owner, owner_web, members, http)
        await peers.close()


class _Open:
    closed = False


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


async def test_a_forwarded_request_is_not_forwarded_again(pair: Pair) -> None:
    async with pair.http.get(PATH, headers={REPLICA_HEADER: "rep_x"}) as response:
        answer = await response.json()
    assert (response.status, answer["code"]) == (503, "unavailable")
    assert "moving" in answer["error"]


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
