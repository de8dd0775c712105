"""Share work between tasks: the first one starts it, and it is cancelled when the last one leaves."""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from pyexec.aio import Broadcast
from pyexec.errors import SetupFailed, ShuttingDown

logger = logging.getLogger(__name__)

OnOutput = Callable[[bytes], None]
"""Receives the output of work as it arrives."""
Work = Callable[[OnOutput], Awaitable[Any]]

OUTPUT_BYTES_MAX = 256 * 1024
TAIL_BYTES = 64 * 1024


@define(eq=False)
class _Job:
    """Work in progress: its output so far, and how it ended."""

    output: bytearray = field(factory=bytearray)
    tail: bytearray = field(factory=bytearray)
    changed: Broadcast = field(factory=Broadcast)
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    waiters: int = 0
    finished: bool = False
    error: Exception | None = None

    def add_output(self, data: bytes) -> None:
        """Keep the beginning and the end of a long output; errors are at the end."""
        capacity = OUTPUT_BYTES_MAX - len(self.output)
        self.output += data[:capacity]
        self.tail = (self.tail + data[capacity:])[-TAIL_BYTES:]
        self.changed.notify_all()

    def finish(self, error: Exception | None) -> None:
        if self.tail:
            self.output += b"\n[...]\n" + self.tail
        self.finished, self.error = True, error
        self.changed.notify_all()


class SharedWork:
    """Runs work, at most one at a time for each key. `serve` must be running while it is used."""

    def __init__(self) -> None:
        self._jobs: dict[object, _Job] = {}
        self._tasks: TaskGroup | None = None

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the work until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    async def join(self, key: object, work: Work, on_output: OnOutput) -> None:
        """Start the work for this key, or join it if it is in progress. Return when it is done; raise what it raises.

        Every waiting task receives the whole output. The work is cancelled when the last task stops waiting."""
        job = self._jobs.get(key)
        if job is None:
            job = self._begin(key, work)
        job.waiters += 1
        received = 0
        try:
            while True:
                changed = job.changed.next_event()
                if len(job.output) > received:
                    on_output(bytes(job.output[received:]))
                    received = len(job.output)
                if job.finished:
                    break
                await changed.wait()
        finally:
            job.waiters -= 1
            if not job.waiters and not job.finished:
                self._forget(key, job)
                job.scope.cancel()
        if job.error is not None:
            raise job.error

    def run_in_background(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a task for which no caller waits."""
        self._group().start_soon(work, name=name)

    def _begin(self, key: object, work: Work) -> _Job:
        job = self._jobs[key] = _Job()
        self._group().start_soon(partial(self._run, key, job, work), name=f"shared work {key}")
        return job

    async def _run(self, key: object, job: _Job, work: Work) -> None:
        error: Exception | None = ShuttingDown()
        try:
            with job.scope:
                try:
                    await work(job.add_output)
                    error = None
                except Exception as failure:  # noqa: BLE001 every waiting task raises it
                    # The message of SetupFailed contains output of the caller's commands, so only its code is logged.
                    logger.info(
                        "preparing %s failed: %s",
                        key,
                        failure.code if isinstance(failure, SetupFailed) else failure,
                    )
                    error = failure
        finally:
            self._forget(key, job)
            job.finish(error)

    def _forget(self, key: object, job: _Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("SharedWork.serve is not running")
        return self._tasks
