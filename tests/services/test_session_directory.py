"""Test that lists of sessions read only what has changed, and that a client can wait for a change."""

from collections.abc import Sequence
from unittest.mock import Mock

import anyio
from attrs import define, field

from pyexec.aio import Broadcast
from pyexec.domain.session_events import SessionEvent
from pyexec.ports import SessionIndex
from pyexec.services.sessions.directory import SessionDirectory
from tests.events import closed, opened, placed

FIRST, SECOND = (f"ses_{32 * digit}" for digit in "12")


@define
class CountedLog:
    """A log in memory that records what is read."""

    sessions: dict[str, list[SessionEvent]]
    reads: list[str] = field(factory=list)
    lists: int = 0
    version: int = 1
    changed: Broadcast = field(factory=Broadcast)

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        self.reads.append(session_id)
        return self.sessions[session_id]

    async def all(self, since: int | None = None) -> SessionIndex:
        self.lists += 1
        while self.version == since:
            await self.changed.wait()
        lengths = {name: len(events) for name, events in self.sessions.items()}
        return SessionIndex(version=self.version, lengths=lengths)

    async def change(self) -> None:
        self.version += 1
        self.changed.notify_all()


async def test_only_sessions_that_have_changed_are_read_again() -> None:
    log = CountedLog({FIRST: [opened(), placed()], SECOND: [opened(), placed()]})
    directory = SessionDirectory(Mock(all=log.all, read=log.read), Mock())
    assert [session.id for session in await directory.all()] == [SECOND, FIRST]
    log.sessions[FIRST].append(closed())
    log.reads.clear()
    assert [session.is_open for session in await directory.all()] == [True, False]
    assert log.reads == [FIRST]
    del log.sessions[FIRST]
    assert [session.id for session in await directory.all()] == [SECOND]


async def test_a_wait_is_one_request_and_ends_with_the_next_version_or_when_the_time_is_up() -> None:
    log = CountedLog({FIRST: [opened()]})
    directory = SessionDirectory(Mock(all=log.all), Mock())
    assert await directory.version(None, 60) == 1
    assert await directory.version(1, 0.01) == 1
    assert (log.lists, log.reads) == (2, [])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.change, name="change")
        assert await directory.version(1, 60) == 2
    assert (log.lists, log.reads) == (3, [])
