"""The command `repl`: an interpreter on the server, in the terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import anyio
import asyncclick
from anyio import to_thread

from pyexec_client import AsyncSession, PyexecError, Result, SessionClosed, Unauthorized

from .console import Console
from .displays import output_displays
from .event_printer import EventPrinter, print_result
from .exit_codes import OutputFailed
from .flags import Flags, complete_path, with_flags
from .session_flags import NO_SESSION_FLAGS, SessionFlags, read_session_options, session_flags
from .statements import Statements

_HISTORY_LINES = 1000
_LEAVE = ("exit", "quit", "exit()", "quit()")


@asyncclick.command(name="repl")
@asyncclick.option("--session", "session_id", metavar="ID", help="Use this session, and leave it open.")
@session_flags
@asyncclick.option(
    "--output-dir",
    metavar="DIR",
    shell_complete=complete_path,
    help="Save displays such as figures in DIR as display-1.png.",
)
@with_flags(runs=True)
async def repl(flags: Flags, settings: SessionFlags, session_id: str | None, output_dir: str | None) -> int:
    """Type Python code that runs on the server, in one session.

    Ctrl-C interrupts the code; a second Ctrl-C stops waiting for it. Ctrl-D closes the session,
    unless it was named with --session.
    """
    console = Console(flags)
    if output_dir == "":
        raise asyncclick.UsageError("--output-dir: must not be empty")
    options = await read_session_options(settings, flags)
    if session_id is not None and settings != NO_SESSION_FLAGS:
        raise asyncclick.UsageError("--session: the session is open; leave out the flags that open one")
    async with flags.client() as client:
        if session_id is None:
            console.status_line.show("opening a session")
            opened = await client.open_session(**options)
        else:
            opened = await client.get_session(session_id)
        console.status_line.close()
        async with opened:
            end = "Ctrl-D closes it" if session_id is None else "Ctrl-D exits; the session stays open"
            console.info(f"session {opened.id} ({opened.info.docker_image}); {end}")
            await _Repl(opened, console, output_dir, flags.timeout if session_id else None).run()
    return 0


class _Repl:
    """Reads statements and runs each as a cell. `timeout` is that of each cell; None is the session's."""

    def __init__(
        self, session: AsyncSession, console: Console, output_dir: str | None, timeout: float | None
    ) -> None:
        self._session = session
        self._console = console
        self._output_dir = output_dir
        self._timeout = timeout
        self._displays = 0
        self._is_terminal = sys.stdin is not None and sys.stdin.isatty()

    async def run(self) -> None:
        """Run until the end of the input."""
        statements = Statements()
        with _history() if self._is_terminal else contextlib.nullcontext():
            while True:
                try:
                    line = await self._read_line(">>> " if statements.is_empty else "... ")
                except KeyboardInterrupt:
                    print("\nKeyboardInterrupt", file=sys.stderr)
                    statements.take()
                    continue
                except EOFError:
                    break
                if statements.is_empty and line.strip() in _LEAVE:
                    return
                if (code := statements.add(line)) is not None:
                    await self._run_cell(code)
        if self._is_terminal:
            print(file=sys.stderr)
        elif not statements.is_empty:
            await self._run_cell(statements.take())

    async def _read_line(self, prompt: str) -> str:
        """Read a line. Raise EOFError at the end of the input, and KeyboardInterrupt for Ctrl-C."""
        if not self._is_terminal:
            line: str = await to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            if not line:
                raise EOFError
            return line.rstrip("\n")
        # readline works in the main thread only. Nothing else runs between two cells, so this may block the event loop.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return input(prompt)  # noqa: ASYNC250 see above
        finally:
            signal.signal(signal.SIGINT, handler)

    async def _run_cell(self, code: str) -> None:
        """Run one cell and print its output. On a terminal, an error of the server leaves the session usable."""
        try:
            result = await self._wait_for_cell(code)
            if result is not None:
                await self._print(result)
        except (SessionClosed, Unauthorized):
            raise
        except PyexecError as error:
            if not self._is_terminal:
                raise
            self._console.error(str(error))

    async def _wait_for_cell(self, code: str) -> Result | None:
        """Run one cell; return None if the user stops waiting for it.

        With a key, the client sends the request again if the connection was closed while the user typed."""
        printer = EventPrinter(self._console)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_interrupts, tasks.cancel_scope, name="Ctrl-C")
            try:
                await self._session.run(
                    code, on_event=printer.show, timeout=self._timeout, idempotency_key=uuid.uuid4().hex
                )
            except (PyexecError, OutputFailed) as error:
                failure: Exception | None = error  # raised below, without a group around it
            else:
                failure = None
            tasks.cancel_scope.cancel()
        if tasks.cancel_scope.cancelled_caught and printer.result is None and printer.execution_id:
            self._console.error(f"stopped waiting; {printer.execution_id} continues")
            return None
        if failure is not None:
            raise failure
        return printer.result

    async def _watch_interrupts(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._interrupt, name="interrupt")
                    async for _ in signals:
                        scope.cancel()
                        return

    async def _interrupt(self) -> None:
        try:
            await self._session.interrupt()
        except PyexecError as error:
            self._console.error(f"cannot interrupt the code: {error} (press Ctrl-C again to stop waiting)")

    async def _print(self, result: Result) -> None:
        if result.result not in (None, "None"):
            await self._console.write("stdout", f"{result.result}\n".encode())
        await output_displays(result, self._output_dir, self._console, show=True, first=self._displays + 1)
        self._displays += len(result.displays)
        await print_result(result, self._console, as_json=False)
        if result.interpreter_restarted:
            self._console.error("the session has a new interpreter; its variables are lost")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Load the history of the line editor, and save it at the end."""
    try:
        import readline
    except ImportError:  # not available on Windows
        yield
        return
    file = Path(os.environ.get("PYEXEC_HISTORY") or Path.home() / ".python_executor_history")
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):
            readline.write_history_file(file)
