"""Print the events of an execution as they arrive, and its result at the end."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from pyexec_client import (
    ConnectionFailed,
    Ended,
    Event,
    Lifecycle,
    Output,
    PyexecError,
    Result,
    Setup,
    Unavailable,
)

from . import exit_codes
from .console import Console
from .printable import printable, printable_json

_PHASES = {
    "submitted": "queued",
    "claimed": "queued",
    "released": "queued",
    "preparing": "installing",
    "running": "running",
}
# The server appends sentences that begin so to the error of a program.
_HINTS = (
    "(the network is disabled",
    "(files in /work and /tmp",
    "(the sandbox has no module",
    "(this run has no standard input",
    "(the program reached the limit",
)
# Hints name fields of requests before the flags that set them. Users do not see the fields.
_FIELDS = re.compile(r"(?:requirements_txt|stdin|config\.\w+(?:: false)?), (?:or )?(--)", re.ASCII)


@define
class EventPrinter:
    """Print events as they arrive.

    `output`: print the program's output. `phases`: print every change of phase and the output of the setup.
    `started`: the program has started; until then, stderr is the output of the setup, which is escaped.
    `printed`: streams of the result that have been printed.
    """

    console: Console
    output: bool = True
    phases: bool = False
    execution_id: str | None = None
    result: Result | None = None
    printed: set[str] = field(factory=set, init=False)
    started: bool = field(default=False, init=False)
    _decoder: codecs.IncrementalDecoder = field(init=False)

    @_decoder.default
    def _new_decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder("utf-8")("replace")

    async def show(self, event: Event) -> None:
        """Print one event."""
        match event:
            case Output() if self.started:
                if self.output:
                    self.printed.add(event.stream)
                    await self.console.write(event.stream, event.data)
            case Setup() | Output():  # when a setup has failed, the server sends its output as stderr
                await self._show_setup(event.data)
            case Lifecycle():
                self.execution_id = event.execution_id or self.execution_id
                if event.type == "running":
                    self.started = True
                    self.printed.clear()
                self._show_phase(event.type)
            case Ended():
                self.result = event.result
                self.console.status_line.close()
                if self.phases:
                    self.console.info(str(event.result.status))
                if self.output:
                    await self._show_rest(event.result)

    async def _show_setup(self, data: bytes) -> None:
        """Print output of the setup if phases or details are wanted. The result contains it if the setup failed."""
        if (self.phases or self.console.flags.verbose) and not self.console.flags.quiet:
            self.printed.add("stderr")
            await self.console.write("stderr", printable(self._decoder.decode(data)).encode())

    def _show_phase(self, phase: str) -> None:
        if not self.phases and phase in _PHASES:
            self.console.status_line.show(_PHASES[phase])
        write = self.console.info if self.phases else self.console.debug
        write(f"{self.execution_id} {phase}" if phase == "submitted" else phase)

    async def _show_rest(self, result: Result) -> None:
        """Print output that no event contained: the output of a setup that failed is only in the result."""
        if "stdout" not in self.printed and result.stdout:
            await self.console.write("stdout", result.stdout.encode())
        if "stderr" not in self.printed and result.stderr:
            text = result.stderr if self.started else printable(result.stderr)
            await self.console.write("stderr", text.encode())


@contextmanager
def naming_lost_execution(printer: EventPrinter) -> Iterator[None]:
    """If the connection is lost for good, add to the error how to follow the execution, which may still run."""
    try:
        yield
    except (ConnectionFailed, Unavailable) as error:
        execution_id = printer.execution_id
        if execution_id is None or printer.result is not None:
            raise
        raise PyexecError(
            f"{error}; {execution_id} may still run: python-executor follow {execution_id}"
        ) from error


def _reason(result: Result) -> str:
    """Return why the execution failed, without the output of the setup that the server repeats at the end."""
    reason, _, repeated = (result.error or "").partition(": ")
    if result.error_type == "setup_failed" and repeated and _one_line(repeated) in _one_line(result.stderr):
        return reason
    return result.error or "the server gives no reason"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _hint(result: Result) -> str:
    """Return the server's hint why the program may have failed, or an empty string.

    Without an exception, the rest of the error belongs to it, such as the name of the signal."""
    error = result.error or ""
    starts = [start for hint in _HINTS if (start := error.rfind(hint)) >= 0]
    first = min(starts, default=len(error))
    message = "" if result.error_type else error[:first].rstrip()
    hints = error[first:].removeprefix("(").removesuffix(")").replace(") (", "; ")
    return "; ".join(filter(None, (message, _FIELDS.sub(r"\1", hints))))


async def print_result(result: Result, console: Console, *, as_json: bool) -> int:
    """Print how the execution ended, unless its output already says so, and return the exit code."""
    if as_json:
        await console.write(
            "stdout", printable_json(json.dumps(result.raw, ensure_ascii=False)).encode() + b"\n"
        )
    elif result.status == "killed":
        console.error(f"{result.execution_id} was killed")
    elif result.status == "failed":
        kind = f" ({result.error_type})" if result.error_type else ""
        console.error(f"execution failed{kind}: {_reason(result)}")
    elif hint := _hint(result):
        console.info(hint)
    for stream in ("stdout", "stderr"):
        if getattr(result.truncated, stream):  # what was printed while the program ran can be more
            console.info(
                f"the server stored only the beginning of {stream}; python-executor logs returns no more than that"
            )
    if result.truncated.result:
        console.info("only the beginning of result was stored")
    if result.truncated.displays:
        console.info("some displays were dropped: they exceed the server's limit, or are malformed")
    return exit_codes.exit_code_of(result.status, result.exit_code, result.error_type)
