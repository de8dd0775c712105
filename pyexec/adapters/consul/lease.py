"""Who is alive and who leads, by Consul's sessions: a key lives, or is held, as long as its session is renewed."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import attrs
import cattrs
from anyio.abc import TaskGroup

from pyexec.adapters.consul.keys import LEADER, REPLICAS, replica_key
from pyexec.adapters.consul.kv import ConsulKV, Entry, Operation
from pyexec.aio import FailureLog
from pyexec.errors import ConsulSessionLost, Unavailable
from pyexec.ports import Member, Members

logger = logging.getLogger(__name__)

TTL_SECONDS: Final = 10
"""The least that Consul allows. It ends a session 17 to 20 s after its last renewal; we count it as lost after 10."""
RENEW_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 1.0


class Session:
    """One session of Consul's; `keep` must run as long as it is needed. `lost` is set once it is not to be
    relied on: Consul says so, or it was not renewed for its whole term by our own clock."""

    def __init__(self, kv: ConsulKV, session_id: str, name: str, expires_at: float) -> None:
        self.id = session_id
        self.lost = anyio.Event()
        self._kv = kv
        self._expires_at = expires_at
        self._renewing = FailureLog(logger, f"renewing the session of {name}")

    @classmethod
    async def begin(cls, kv: ConsulKV, name: str, *, behavior: str) -> "Session":
        """A new one; it is counted from before it was asked for, so that we never count on it for too long."""
        expires_at = anyio.current_time() + TTL_SECONDS
        session_id = await kv.create_session(name, behavior=behavior, ttl_seconds=TTL_SECONDS)
        return cls(kv, session_id, name, expires_at)

    @property
    def alive(self) -> bool:
        """By our own clock, too: a process that was stopped for a while must not wait to be told."""
        return not self.lost.is_set() and anyio.current_time() < self._expires_at

    async def keep(self) -> None:
        """Renews it until it is lost."""
        try:
            while self.alive:
                with anyio.CancelScope(deadline=self._expires_at):
                    await anyio.sleep(RENEW_SECONDS)
                    await self._renew()
        except ConsulSessionLost as error:
            logger.error("%s", error)
        finally:
            self.lost.set()

    async def attend(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Does `work` for as long as the session is not lost."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, name="work of a session")
            await self.lost.wait()
            tasks.cancel_scope.cancel()

    async def _renew(self) -> None:
        expires_at = anyio.current_time() + TTL_SECONDS
        try:
            await self._kv.renew_session(self.id)
        except ConsulSessionLost:
            raise
        except Unavailable as error:
            self._renewing.failed(error)
        else:
            self._renewing.recovered()
            self._expires_at = expires_at

    async def end(self) -> None:
        """Lets Consul release or delete at once what it holds; where that fails, its term ends it."""
        self.lost.set()
        with anyio.CancelScope(shield=True):
            try:
                await self._kv.destroy_session(self.id)
            except Unavailable as error:
                logger.warning("a session is left to its term: %s", error)


class ConsulMembership:
    """`ports.Membership` on Consul. `open` it as a context manager: its tasks run inside."""

    def __init__(self, kv: ConsulKV, tasks: TaskGroup) -> None:
        self._kv = kv
        self._tasks = tasks
        self._member: Member | None = None
        self._session: Session | None = None
        self._keeper = anyio.CancelScope()

    @classmethod
    @asynccontextmanager
    async def open(cls, kv: ConsulKV) -> AsyncIterator["ConsulMembership"]:
        """A membership that nobody has joined yet; it is left at the end."""
        async with anyio.create_task_group() as tasks:
            membership = cls(kv, tasks)
            try:
                yield membership
            finally:
                await membership.leave()
                tasks.cancel_scope.cancel()

    @property
    def held(self) -> bool:
        return self._session is not None and self._session.alive

    async def join(self, member: Member) -> None:
        await self.leave()
        self._member = member
        self._session = await self._enter()
        self._keeper = anyio.CancelScope()
        self._tasks.start_soon(
            self._stay, self._session, self._keeper, name=f"membership of {member.replica}"
        )

    async def members(self, since: int | None = None) -> Members:
        listing = await self._kv.recurse(REPLICAS, since)
        found = (_decoded(entry) for entry in listing.entries if entry.session is not None)
        return Members(version=listing.index, members={m.replica: m for m in found if m is not None})

    async def leave(self) -> None:
        self._keeper.cancel()
        session, self._session = self._session, None
        if session is not None:
            await session.end()

    def fence(self) -> Operation:
        """What a transaction begins with, so that it does nothing once this replica has been taken for dead.

        Raises `ConsulSessionLost` when that is known already."""
        if self._member is None or self._session is None or not self._session.alive:
            raise ConsulSessionLost("this replica is no member at present: its session with Consul is lost")
        return Operation(
            verb="check-session", key=replica_key(self._member.replica), session=self._session.id
        )

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[None]:
        session = await self._win()
        with anyio.CancelScope() as scope:
            self._tasks.start_soon(self._end_with, session, scope, name="end of leadership")
            self._tasks.start_soon(session.attend, partial(self._hold, session), name="hold the leader's key")
            try:
                yield
            finally:
                await session.end()

    async def _enter(self) -> Session:
        """Makes the replica's key with a session of its own, once no predecessor holds it."""
        if self._member is None:
            raise ValueError("a membership begins with join")
        key = replica_key(self._member.replica)
        while True:
            index, entry = await self._kv.get(key)
            if entry is not None and entry.session is not None:
                logger.warning("%s is still held by the session of a predecessor", key)
                await self._kv.get(key, since=index)
                continue
            session = await Session.begin(self._kv, self._member.replica, behavior="delete")
            try:
                if await self._kv.put(key, _encoded(self._member), session=session.id):
                    return session
            except BaseException:
                await session.end()
                raise
            await session.end()

    async def _stay(self, session: Session, keeper: anyio.CancelScope) -> None:
        """Keeps the session; makes another when it is lost, for as long as it takes."""
        with keeper:
            while True:
                await session.keep()
                logger.error("this replica may be taken for dead: its session is lost, it starts a new one")
                self._session = session = await self._reenter(session)
                logger.info("this replica is a member again")

    async def _reenter(self, lost: Session) -> Session:
        entering = FailureLog(logger, "becoming a member again")
        while True:
            try:
                # A Consul that was away counts its term anew, and would keep our key for as long.
                await self._kv.destroy_session(lost.id)
                return await self._enter()
            except Unavailable as error:
                entering.failed(error)
                await anyio.sleep(RETRY_SECONDS)

    async def _win(self) -> Session:
        """A session that holds the leader's key, however long that takes."""
        beginning = FailureLog(logger, "beginning a session to lead with")
        while True:
            try:
                session = await Session.begin(self._kv, LEADER, behavior="release")
                beginning.recovered()
            except Unavailable as error:
                beginning.failed(error)
                await anyio.sleep(RETRY_SECONDS)
                continue
            self._tasks.start_soon(session.attend, session.keep, name="session of the leader")
            try:
                if await self._campaign(session):
                    return session
            except BaseException:
                await session.end()
                raise
            await session.end()

    async def _campaign(self, session: Session) -> bool:
        """Waits for the leader's key; False when the session was lost before."""
        won = False
        asking = FailureLog(logger, "asking for leadership")
        with anyio.CancelScope() as scope:
            self._tasks.start_soon(self._end_with, session, scope, name="end of a campaign")
            while not won:
                try:
                    won = await self._take_lead(session)
                    asking.recovered()
                except ConsulSessionLost:
                    return False
                except Unavailable as error:
                    asking.failed(error)
                    await anyio.sleep(RETRY_SECONDS)
        return won and session.alive

    async def _take_lead(self, session: Session) -> bool:
        """Takes the leader's key when nobody holds it; else waits for a change, or a while."""
        index, entry = await self._kv.get(LEADER)
        if entry is not None and entry.session is not None:
            await self._kv.get(LEADER, since=index)
            return False
        leader = b"" if self._member is None else self._member.replica.encode()
        return await self._kv.put(LEADER, leader, session=session.id)

    async def _hold(self, session: Session) -> None:
        """Sees at once when the leader's key is taken away, by an operator or by a session that ended."""
        since = None
        watching = FailureLog(logger, "watching the leader's key")
        while True:
            try:
                since, entry = await self._kv.get(LEADER, since)
                watching.recovered()
            except Unavailable as error:
                watching.failed(error)
                await anyio.sleep(RETRY_SECONDS)
                continue
            if entry is None or entry.session != session.id:
                logger.error("leadership is lost")
                session.lost.set()

    async def _end_with(self, session: Session, scope: anyio.CancelScope) -> None:
        await session.lost.wait()
        scope.cancel()


def _encoded(member: Member) -> bytes:
    return json.dumps(attrs.asdict(member)).encode()


def _decoded(entry: Entry) -> Member | None:
    try:
        return cattrs.structure(json.loads(entry.value), Member)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        logger.error("%s is not an entry of ours: %r", entry.key, error)
        return None
