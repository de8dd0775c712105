"""Work that several wait for, and that is done once: the first one starts it, the last one to leave ends it."""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from pyexec.errors import SetupFailed, Unavailable

logger = logging.getLogger(__name__)

Say = Callable[[bytes], None]

SAID_BYTES_MAX = 256 * 1024
TAIL_BYTES = 64 * 1024


@define(eq=False)
class _Job:
    """One piece of work under way: what it has said so far, and how it ended."""

    said: bytearray = field(factory=bytearray)
    unsaid: bytearray = field(factory=bytearray)
    changed: anyio.Event = field(factory=anyio.Event)
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    waiting: int = 0
    over: bool = False
    error: Exception | None = None

    def say(self, data: bytes) -> None:
        """Keeps the beginning and the end of what is a great deal; its end says what was wrong."""
        room = SAID_BYTES_MAX - len(self.said)
        self.said += data[:room]
        self.unsaid = (self.unsaid + data[room:])[-TAIL_BYTES:]
        self.notify_all()

    def end(self, error: Exception | None) -> None:
        if self.unsaid:
            self.said += b"\n[...]\n" + self.unsaid
        self.over, self.error = True, error
        self.notify_all()

    def notify_all(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class SharedWork:
    """Pieces of work by their keys; `serve` must run around it."""

    def __init__(self) -> None:
        self._jobs: dict[object, _Job] = {}
        self._tasks: TaskGroup | None = None

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Holds the work until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    async def join(self, key: object, work: Callable[[Say], Awaitable[Any]], say: Say) -> None:
        """Returns when the work under `key` is done, begun by whoever came first; raises what it raises.

        What it says is said to everybody who waits, from its beginning. It ends with the last who waits."""
        job = self._jobs.get(key)
        if job is None:
            job = self._begin(key, work)
        job.waiting += 1
        heard = 0
        try:
            while True:
                changed = job.changed
                if len(job.said) > heard:
                    say(bytes(job.said[heard:]))
                    heard = len(job.said)
                if job.over:
                    break
                await changed.wait()
        finally:
            job.waiting -= 1
            if not job.waiting and not job.over:
                self._forget(key, job)
                job.scope.cancel()
        if job.error is not None:
            raise job.error

    def later(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Does something that nobody waits for."""
        self._group().start_soon(work, name=name)

    def _begin(self, key: object, work: Callable[[Say], Awaitable[Any]]) -> _Job:
        job = self._jobs[key] = _Job()
        self._group().start_soon(partial(self._carry_out, key, job, work), name=f"shared {key}")
        return job

    async def _carry_out(self, key: object, job: _Job, work: Callable[[Say], Awaitable[Any]]) -> None:
        error: Exception | None = Unavailable("this server is stopping; send the request again")
        try:
            with job.scope:
                try:
                    await work(job.say)
                    error = None
                except Exception as failure:  # noqa: BLE001 whoever waits for it raises it
                    # Not in its own words: the end of what a caller's command has printed is among them.
                    logger.info(
                        "%s has failed: %s",
                        key,
                        failure.code if isinstance(failure, SetupFailed) else failure,
                    )
                    error = failure
        finally:
            self._forget(key, job)
            job.end(error)

    def _forget(self, key: object, job: _Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the shared work is not serving")
        return self._tasks
