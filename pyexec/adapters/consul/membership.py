"""Membership and leadership by Consul sessions: a replica holds a key as long as it renews the key's session."""

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

from pyexec.adapters.consul.kv import ConsulKV, Entry, Operation
from pyexec.adapters.consul.schema import LEADER, REPLICAS, decode_json, replica_key
from pyexec.aio import FailureLog, retry
from pyexec.errors import ConsulSessionLost, Unavailable
from pyexec.ports import Member, Members

logger = logging.getLogger(__name__)

TTL_SECONDS: Final = 10
"""The minimum that Consul allows. It ends a session 17 to 20 s after the last renewal; this server counts 10 s."""
RENEW_SECONDS: Final = 3.0


class Session:
    """A Consul session. `keep_alive` must run as long as the session is needed.

    `lost` is set as soon as the session may have ended: Consul has reported it, or the session was not renewed within
    its TTL by the clock of this machine."""

    def __init__(self, kv: ConsulKV, session_id: str, name: str, expires_at: float) -> None:
        self.id = session_id
        self.lost = anyio.Event()
        self._kv = kv
        self._expires_at = expires_at
        self._failures = FailureLog(logger, f"renewing the Consul session of {name}")

    @classmethod
    async def create(cls, kv: ConsulKV, name: str, *, behavior: str) -> "Session":
        """Create a session. Its TTL is counted from before the request, so that it expires here before it does in
        Consul."""
        expires_at = anyio.current_time() + TTL_SECONDS
        session_id = await kv.create_session(name, behavior=behavior, ttl_seconds=TTL_SECONDS)
        return cls(kv, session_id, name, expires_at)

    @property
    def is_valid(self) -> bool:
        """False if it is lost or has expired. The clock is read too, because a process that was suspended has not set
        `lost` yet."""
        return not self.lost.is_set() and anyio.current_time() < self._expires_at

    async def keep_alive(self) -> None:
        """Renew the session until it is lost."""
        try:
            while self.is_valid:
                with anyio.CancelScope(deadline=self._expires_at):
                    await anyio.sleep(RENEW_SECONDS)
                    await self._renew()
        except ConsulSessionLost as error:
            logger.error("%s", error)
        finally:
            self.lost.set()

    async def run_until_lost(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run `work`, and cancel it when the session is lost."""
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
            self._failures.failed(error)
        else:
            self._failures.recovered()
            self._expires_at = expires_at

    async def destroy(self) -> None:
        """End the session, so that Consul releases or deletes its keys now. If that fails, its TTL ends it."""
        self.lost.set()
        with anyio.CancelScope(shield=True):
            try:
                await self._kv.destroy_session(self.id)
            except Unavailable as error:
                logger.warning("ending a Consul session failed; it will expire: %s", error)


class ConsulMembership:
    """`ports.Membership` on Consul. `open` it as a context manager: its tasks run inside."""

    def __init__(self, kv: ConsulKV, tasks: TaskGroup) -> None:
        self._kv = kv
        self._tasks = tasks
        self._member: Member | None = None
        self._session: Session | None = None
        self._scope = anyio.CancelScope()

    @classmethod
    @asynccontextmanager
    async def open(cls, kv: ConsulKV) -> AsyncIterator["ConsulMembership"]:
        """Yield a membership that has not joined yet. It leaves at the end."""
        async with anyio.create_task_group() as tasks:
            membership = cls(kv, tasks)
            try:
                yield membership
            finally:
                await membership.leave()
                tasks.cancel_scope.cancel()

    @property
    def is_member(self) -> bool:
        return self._session is not None and self._session.is_valid

    async def join(self, member: Member) -> None:
        await self.leave()
        self._member = member
        self._session = await self._register()
        self._scope = anyio.CancelScope()
        self._tasks.start_soon(
            self._stay_registered, self._session, self._scope, name=f"membership of {member.replica}"
        )

    async def update(self, member: Member) -> None:
        self._member = member
        if self._session is not None:
            await self._kv.put(replica_key(member.replica), _encode(member), session=self._session.id)

    async def members(self, since: int | None = None) -> Members:
        listing = await self._kv.recurse(REPLICAS, since)
        found = (_decode(entry) for entry in listing.entries if entry.session is not None)
        return Members(version=listing.index, members={m.replica: m for m in found if m is not None})

    async def leave(self) -> None:
        self._scope.cancel()
        session, self._session = self._session, None
        if session is not None:
            await session.destroy()

    async def evict(self, replica: str) -> None:
        _, member = await self._kv.get(replica_key(replica))
        _, leader = await self._kv.get(LEADER)
        leads = leader is not None and leader.value == replica.encode()
        for entry in (member, leader if leads else None):
            if entry is not None and entry.session is not None:
                await self._kv.destroy_session(entry.session)

    def fence(self) -> Operation:
        """Return the operation that fails a transaction once the session of this replica has ended.

        Raises `ConsulSessionLost` if that is known already."""
        if self._member is None or self._session is None or not self._session.is_valid:
            raise ConsulSessionLost("this replica is not a member: its Consul session is lost")
        return Operation(
            verb="check-session", key=replica_key(self._member.replica), session=self._session.id
        )

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[None]:
        session = await self._acquire_leadership()
        with anyio.CancelScope() as scope:
            self._tasks.start_soon(_cancel_when_lost, session, scope, name="end of leadership")
            watch = partial(self._watch_leader_key, session)
            self._tasks.start_soon(session.run_until_lost, watch, name="watch of the leader key")
            try:
                yield
            finally:
                await session.destroy()

    async def _register(self) -> Session:
        """Create the key of this replica under a new session, once no earlier process holds it."""
        if self._member is None:
            raise ValueError("join has not been called")
        key = replica_key(self._member.replica)
        while True:
            index, entry = await self._kv.get(key)
            if entry is not None and entry.session is not None:
                logger.warning("%s is still held by an earlier session; waiting for it to expire", key)
                await self._kv.get(key, since=index)
                continue
            session = await Session.create(self._kv, self._member.replica, behavior="delete")
            try:
                if await self._kv.put(key, _encode(self._member), session=session.id):
                    return session
            except BaseException:
                await session.destroy()
                raise
            await session.destroy()

    async def _stay_registered(self, session: Session, scope: anyio.CancelScope) -> None:
        """Keep the session alive; whenever it is lost, register again."""
        with scope:
            while True:
                await session.keep_alive()
                logger.error("Consul session lost; writes are suspended until it is renewed")
                failures = FailureLog(logger, "registering this replica in Consul again")
                session = await retry(partial(self._register_again, session), failures)
                self._session = session
                logger.info("Consul session renewed; this replica is a member again")

    async def _register_again(self, lost: Session) -> Session:
        # A restarted Consul counts the TTL of the old session from its start, and keeps the key for as long.
        await self._kv.destroy_session(lost.id)
        return await self._register()

    async def _acquire_leadership(self) -> Session:
        """Wait until a session of this replica holds the leader key, and return it."""
        failures = FailureLog(logger, "creating a Consul session for leadership")
        create = partial(Session.create, self._kv, LEADER, behavior="release")
        while True:
            session = await retry(create, failures)
            self._tasks.start_soon(
                session.run_until_lost, session.keep_alive, name="renewal of the leader session"
            )
            try:
                if await self._campaign(session):
                    return session
            except BaseException:
                await session.destroy()
                raise
            await session.destroy()

    async def _campaign(self, session: Session) -> bool:
        """Wait for the leader key; return False if the session is lost first."""
        elected = False
        failures = FailureLog(logger, "campaigning for leadership")
        with anyio.CancelScope() as scope:
            self._tasks.start_soon(_cancel_when_lost, session, scope, name="end of a campaign")
            while not elected and session.is_valid:
                elected = await retry(partial(self._take_leader_key, session), failures)
        return elected and session.is_valid

    async def _take_leader_key(self, session: Session) -> bool:
        """Take the leader key if no session holds it; otherwise wait for a change, up to the limit of a watch."""
        try:
            index, entry = await self._kv.get(LEADER)
            if entry is not None and entry.session is not None:
                await self._kv.get(LEADER, since=index)
                return False
            leader = b"" if self._member is None else self._member.replica.encode()
            return await self._kv.put(LEADER, leader, session=session.id)
        except ConsulSessionLost:
            session.lost.set()
            return False

    async def _watch_leader_key(self, session: Session) -> None:
        """Set `session.lost` as soon as the session does not hold the leader key: an operator took the key, or the
        session ended."""
        since = None
        failures = FailureLog(logger, "watching the leader key")
        while True:
            since, entry = await retry(partial(self._kv.get, LEADER, since), failures)
            if entry is None or entry.session != session.id:
                logger.error("leadership lost")
                session.lost.set()


async def _cancel_when_lost(session: Session, scope: anyio.CancelScope) -> None:
    await session.lost.wait()
    scope.cancel()


def _encode(member: Member) -> bytes:
    return json.dumps(attrs.asdict(member)).encode()


def _decode(entry: Entry) -> Member | None:
    try:
        return cattrs.structure(decode_json(entry.value), Member)
    except (cattrs.BaseValidationError, ValueError, TypeError) as error:
        logger.error("ignoring unrecognized key %s: %r", entry.key, error)
        return None
