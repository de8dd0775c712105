"""Two servers in this process: the owner of a session, with a double of the service, and another replica."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from attrs import define, field

from pyexec.adapters.peers import HttpPeers
from pyexec.correlation import current_correlation
from pyexec.domain.execution import Execution
from pyexec.domain.session import fold_session
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.session_view import SessionView, view_of
from pyexec.domain.trace_context import TraceContext
from pyexec.errors import OwnedElsewhere, SessionEnded, TooManySessions, Unavailable
from pyexec.ports import Caller, Member, Members
from pyexec.services.active_runs import Run
from pyexec.services.downloads import Download
from pyexec.services.sessions.cells import Cell
from tests.events import opened
from tests.web.in_process import MEBIBYTE, Web, running_web

SESSION = "ses_" + 32 * "0"
PATH = f"/api/v1/sessions/{SESSION}"
TOKEN = "a-long-enough-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SPAN = TraceContext(trace_id=32 * "c", span_id=16 * "d", sampled=True, tracestate="vendor=value")
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


class WithoutMemory(Elsewhere):
    """The service of a replica that has room for a session, but not the memory that one needs."""

    async def place(self, caller: Caller, tenant: str) -> None:
        pass


@define
class Owner:
    """The service of the owner. It records the requests that arrive."""

    cells: list[Cell] = field(factory=list)
    traces: list[tuple[str | None, str | None]] = field(factory=list)
    """`traceparent` and `tracestate` of the cells."""
    callers: list[Caller] = field(factory=list)
    requests: list[SessionRequest] = field(factory=list)
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
        self.requests.append(request)
        async for chunk in archive or _nothing():
            self.received += len(chunk)
        return view()

    async def get(self, session_id: str, caller: Caller) -> SessionView:
        self.callers.append(caller)
        return view()

    async def evaluate(self, session_id: str, cell: Cell, caller: Caller) -> Run | str:
        self.cells.append(cell)
        request = current_correlation()
        self.traces.append((request.traceparent, request.tracestate))
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
    other_web: Web
    members: KnownMembers
    http: aiohttp.ClientSession


@asynccontextmanager
async def running_pair(
    directory: Path, owner_limit: int = 2 * LARGE, other_sessions: Any = None
) -> AsyncIterator[Pair]:
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
            traces=_Traces(),
            api_tokens=TOKEN,
        ) as owner_web,
        running_web(
            directory / "other", sessions=other_sessions or Elsewhere(), peers=peers, api_tokens=TOKEN
        ) as other,
        aiohttp.ClientSession(other.url, headers=BEARER) as http,
    ):
        members.found["rep_owner"] = Member(
            replica="rep_owner", engine="e", address=owner_web.url, slots=1, version="1"
        )
        yield Pair(owner, owner_web, other, members, http)
        await peers.close()


class _Traces:
    """The traces of the owner: every execution has the same span."""

    def known(self, _: str) -> TraceContext:
        return SPAN

    def context_of(self, _: Execution) -> TraceContext:
        return SPAN


class _Open:
    closed = False
