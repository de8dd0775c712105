"""A run as it happens, and what to say at its end."""

from __future__ import annotations

import json

from attrs import define, field

from pyexec_client import Ended, Event, Lifecycle, Output, Result, Setup

from . import exits
from .console import Console

_SPOKEN = {
    "submitted": "queued",
    "claimed": "queued",
    "released": "queued",
    "preparing": "installing",
    "running": "running",
}
# The start of what the server adds to the error of a program that failed for want of a network.
_NO_NETWORK = "(the network is disabled"


@define
class Live:
    """Prints a run's events as they come. `output`: print what the program writes."""

    console: Console
    output: bool = True
    phases: bool = False
    execution_id: str | None = None
    result: Result | None = None
    _streamed: set[str] = field(factory=set, init=False)

    async def show(self, event: Event) -> None:
        match event:
            case Output():
                self._streamed.add(event.stream)
                if self.output:
                    await self.console.write(event.stream, event.data)
            case Setup():
                await self._show_setup(event.data)
            case Lifecycle():
                self.execution_id = event.execution_id or self.execution_id
                self._show_phase(event.type)
            case Ended():
                self.result = event.result
                self.console.line.end()
                if self.phases:
                    self.console.note(str(event.result.status))
                if self.output:
                    await self._show_rest(event.result)

    async def _show_setup(self, data: bytes) -> None:
        """For those who asked for every step. When setup fails, the result has it for all."""
        if (self.phases or self.console.flags.verbose) and not self.console.flags.quiet:
            self._streamed.add("stderr")
            await self.console.write("stderr", data)

    def _show_phase(self, phase: str) -> None:
        if not self.phases and phase in _SPOKEN:
            self.console.line.show(_SPOKEN[phase])
        tell = self.console.note if self.phases else self.console.detail
        tell(f"{self.execution_id} {phase}" if phase == "submitted" else phase)

    async def _show_rest(self, result: Result) -> None:
        """What the result alone has: setup's output, when setup failed, is no output of the program."""
        if "stdout" not in self._streamed and result.stdout:
            await self.console.write("stdout", result.stdout.encode())
        if "stderr" not in self._streamed and result.stderr:
            await self.console.write("stderr", result.stderr.encode())


def _network_hint(result: Result) -> str:
    """The server's own words after the program's; empty if it has none. The program's were printed as they came."""
    _, found, rest = (result.error or "").rpartition(_NO_NETWORK)
    return (found + rest).strip("()") if found else ""


async def conclude(result: Result, console: Console, *, as_json: bool) -> int:
    """Tell how it ended, where the program's own output does not, and return the exit code."""
    if as_json:
        await console.write("stdout", json.dumps(result.raw, ensure_ascii=False).encode() + b"\n")
    elif result.status == "killed":
        console.problem(f"{result.execution_id} was killed")
    elif result.status == "failed":
        kind = f" ({result.error_type})" if result.error_type else ""
        console.problem(f"the run failed{kind}: {result.error or 'the server gives no reason'}")
    elif hint := _network_hint(result):
        console.note(hint)
    for stream in ("stdout", "stderr"):
        if getattr(result.truncated, stream):
            console.note(f"{stream} was cut: it was too long")
    return exits.of_result(result.status, result.exit_code, result.error_type)
