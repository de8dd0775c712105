"""Follow the reports of a setup, and end it if it stores too much on the engine's disk, sets too many file locks,
maps too many files, or opens too many sockets."""

import json

import anyio
from attrs import define, field

from pyexec.errors import SetupFailed
from pyexec.guest.setup_disk import (
    ENGINE_FULL,
    OVER_LIMIT,
    TOO_MANY_FILES,
    TOO_MANY_LOCKS,
    TOO_MANY_SOCKETS,
)
from pyexec.ports import SetupContainer

COMPARE_SECONDS = 1.0
SILENT_SECONDS = 30.0
"""Longest time without a report of the container's first process."""
REPORTS_FREE, REPORTS_PER_SECOND = 100, 2
"""The first process reports once a second. One that belongs to a hostile image must not keep the server busy."""


@define(eq=False)
class SetupWatch:
    """Ends a setup by cancelling its scope, and keeps the reason in `failure`.

    Two parts measure. The first process of the container measures exactly (`pyexec.guest.setup_disk`), but belongs to
    an image that may be hostile. The engine measures only the sizes of files, but cannot be deceived."""

    container: SetupContainer
    bytes_max: int
    written_before: int
    setup: anyio.CancelScope
    stored_bytes: int = 0
    step_field: str | None = field(default=None, init=False)
    """The field of the request that the current step executes."""
    failure: SetupFailed | None = field(default=None, init=False)

    async def follow_reports(self) -> None:
        """Read the reports of the first process until it ends, or until the setup must end."""
        begun, count = anyio.current_time(), 0
        while self.failure is None:
            line = b""
            with anyio.move_on_after(SILENT_SECONDS) as waiting:
                line = await self.container.read_line()
            if waiting.cancelled_caught:
                self._end(f"setup was stopped: its disk space was not measured for {SILENT_SECONDS:g} s")
            elif not line:
                return
            elif count > REPORTS_FREE + REPORTS_PER_SECOND * (anyio.current_time() - begun):
                self._end("setup was stopped: the first process of its container reports too often")
            else:
                count += 1
                self._read_report(line)

    async def compare_written_bytes(self) -> None:
        """Compare what the engine measures with the limit, until the setup must end."""
        while self.failure is None:
            await anyio.sleep(COMPARE_SECONDS)
            await self._compare("and was stopped")

    async def check_at_end(self) -> None:
        """Measure once more after the container has ended. Raises `SetupFailed`."""
        await self._compare("")
        if self.failure is not None:
            raise self.failure

    async def _compare(self, consequence: str) -> None:
        written = await self.container.written_bytes() - self.written_before
        self.stored_bytes = max(self.stored_bytes, written)
        if self.stored_bytes > self.bytes_max:
            self._exceeded(consequence)

    def _read_report(self, line: bytes) -> None:
        try:
            report = json.loads(line)
            stored, reason = int(report["disk_bytes"]), report.get("stopped")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            text = line.decode("utf-8", "replace")[:200]
            self._end(f"setup was stopped: the first process of its container failed: {text}")
            return
        self.stored_bytes = max(0, stored)
        if reason == OVER_LIMIT:
            self._exceeded("and was stopped")
        elif reason == ENGINE_FULL:
            self._end("setup was stopped: the disk of the Docker engine is almost full")
        elif reason == TOO_MANY_LOCKS:
            self._end("setup was stopped: it set too many file locks")
        elif reason == TOO_MANY_FILES:
            self._end("setup was stopped: it mapped too many files")
        elif reason == TOO_MANY_SOCKETS:
            self._end("setup was stopped: its sockets could hold too much memory")

    def _exceeded(self, consequence: str) -> None:
        self._end(f"setup wrote more than {self.bytes_max >> 20} MiB {consequence}".strip())

    def _end(self, reason: str) -> None:
        self.failure = SetupFailed(reason, field=self.step_field)
        self.setup.cancel()
