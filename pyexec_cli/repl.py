"""The command `repl`: an interpreter on the server, in the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
import uuid
from collections.abc import Callable

import anyio
import asyncclick
from anyio import to_thread

from pyexec_client import AsyncClient, AsyncSession, PyexecError, Result, SessionClosed, Unauthorized
from pyexec_client.options import SessionOptions

from .console import Console
from .displays import output_displays
from .event_printer import EventPrinter, print_result
from .exit_codes import NOT_RUN, OutputFailed
from .flags import Flags, complete_path, with_flags
from .interrupts import interruptible
from .printable import print_message
from .prompt import EndedAtPrompt, history, read_line
from .session_flags import NO_SESSION_FLAGS, SessionFlags, read_session_options, session_flags
from .session_opening import Opening, close_session
from .statements import Statements

_LEAVE = ("exit", "quit", "exit()", "quit()")


@asyncclick.command(name="repl")
@asyncclick.option("--session", "session_id", metavar="ID", help="Use the session ID, and leave it open.")
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

    Ctrl-C interrupts the code; a second Ctrl-C kills it. Ctrl-D closes the session,
    unless it was named with --session.
    """
    console = Console(flags)
    if output_dir == "":
        raise asyncclick.UsageError("--output-dir: must not be empty")
    options = await read_session_options(settings, flags, stdin_is_code=not _stdin_is_terminal())
    if session_id is not None and (settings != NO_SESSION_FLAGS or _sets_environment(flags)):
        raise asyncclick.UsageError("--session: cannot be combined with flags that open a session")
    async with flags.client() as client:
        loop = _Repl(client, console, output_dir, flags.timeout if session_id else None)
        return await loop.run_until_signal(session_id, options)


def _stdin_is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


class _Repl:
    """Reads statements and runs each as a cell. `timeout` is that of each cell; None is the session's."""

    def __init__(
        self, client: AsyncClient, console: Console, output_dir: str | None, timeout: float | None
    ) -> None:
        self._client = client
        self._console = console
        self._output_dir = output_dir
        self._timeout = timeout
        self._displays = 0
        self._is_closed = False
        self._is_terminal = _stdin_is_terminal()
        self._is_first_line = True
        self._opening = Opening(console)
        self._on_ctrl_c: Callable[[], None] | None = None  # set while a cell runs

    @property
    def _session(self) -> AsyncSession:
        if self._opening.session is None:
            raise AssertionError("no cell runs before the session is open")
        return self._opening.session

    async def run_until_signal(self, session_id: str | None, options: SessionOptions) -> int:
        """Open a session, or use that with this ID, until the end of the input or a signal that ends the program.

        Return the exit code."""

        async def run() -> int:
            if session_id is not None:
                self._opening.session = await self._open_session(session_id)
                self._greet("Ctrl-D exits, the session stays open")
                return await self.run()
            self._console.status_line.show("opening a session")
            session = await self._opening.open(self._client, None, options)
            if session is None:
                return 0
            try:
                self._greet("Ctrl-D closes the session")
                return await self.run()
            finally:
                await close_session(session)

        async def on_interrupt() -> bool:
            return session_id is None and await self._opening.on_interrupt()

        try:
            return await interruptible(run, on_interrupt, self._handles)
        except EndedAtPrompt as ended:
            return 128 + ended.number

    async def _open_session(self, session_id: str) -> AsyncSession:
        """Return the session with this ID. Raise SessionClosed before the first line is read."""
        session = await self._client.get_session(session_id)
        if not session.info.is_open:
            reason = session.info.close_reason
            raise SessionClosed(410, f"session {session_id} is closed ({reason}); open a new one")
        return session

    def _handles(self, number: int) -> bool:
        """On a terminal, Ctrl-C is for the cell that runs, if any, and does not end the program."""
        if number != signal.SIGINT or not self._is_terminal or self._opening.session is None:
            return False
        if self._on_ctrl_c is not None:
            self._on_ctrl_c()
        return True

    def _greet(self, end: str) -> None:
        self._console.info(f"session {self._session.id} ({self._session.info.docker_image})")
        if self._is_terminal:
            self._console.info(f"Ctrl-C interrupts the code, {end}")

    async def run(self) -> int:
        """Run until the end of the input and return the exit code.

        On a terminal, it is 0, unless the session was closed. Otherwise, the first statement that fails is the last
        one, and gives the exit code."""
        statements = Statements(from_file=not self._is_terminal)
        with history() if self._is_terminal else contextlib.nullcontext():
            while True:
                try:
                    line = await self._read_line(">>> " if statements.is_empty else "... ")
                except KeyboardInterrupt:
                    print_message("\nKeyboardInterrupt")
                    statements.take()
                    continue
                except EOFError:
                    if not self._is_terminal or statements.is_empty:
                        break
                    print_message()  # as in Python, Ctrl-D in a statement ends only the statement
                    code: str | None = statements.take()
                else:
                    if (block := statements.take_before(line)) and (exit_code := await self._run_cell(block)):
                        return exit_code
                    if statements.is_empty and line.strip() in _LEAVE:
                        return 0
                    code = statements.add(line)
                if code is not None:
                    exit_code = await self._run_cell(code)
                    if exit_code != 0 and (self._is_closed or not self._is_terminal):
                        return exit_code
        if self._is_terminal:
            print_message()
        elif not statements.is_empty:
            return await self._run_cell(statements.take())
        return 0

    async def _read_line(self, prompt: str) -> str:
        """Read a line. Raise EOFError at the end of the input, KeyboardInterrupt for Ctrl-C, and EndedAtPrompt."""
        if self._is_terminal:
            self._start_line()
            return read_line(prompt)  # nothing else runs between two cells, so this may block the event loop
        if sys.stdin is None:  # closed by the parent process
            raise EOFError
        line: str = await to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            raise EOFError
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix("\ufeff")  # a byte order mark is no part of the first statement
        return line.rstrip("\n")

    async def _run_cell(self, code: str) -> int:
        """Run one cell, print its output, and return its exit code.

        On a terminal, an error of the server leaves the session usable."""
        try:
            result = await self._wait_for_cell(code)
            if result is not None:
                return await self._print(result)
        except (SessionClosed, Unauthorized):
            raise
        except PyexecError as error:
            if not self._is_terminal:
                raise
            self._console.error(str(error))
        return NOT_RUN

    async def _wait_for_cell(self, code: str) -> Result | None:
        """Run one cell; return None if the user stops waiting for it.

        With a key, the client sends the request again if the connection was closed while the user typed."""
        printer = EventPrinter(self._console)
        async with anyio.create_task_group() as tasks:
            self._on_ctrl_c = self._interrupts_of(printer, tasks)
            try:
                await self._session.run(
                    code, on_event=printer.show, timeout=self._timeout, idempotency_key=uuid.uuid4().hex
                )
            except (PyexecError, OutputFailed) as error:
                failure: Exception | None = error  # raised below, without a group around it
            else:
                failure = None
            finally:
                self._on_ctrl_c = None
            tasks.cancel_scope.cancel()
        if tasks.cancel_scope.cancelled_caught and printer.result is None and printer.execution_id:
            self._console.error(f"stopped waiting; {printer.execution_id} continues")
            return None
        if failure is not None:
            raise failure
        return printer.result

    def _interrupts_of(self, printer: EventPrinter, tasks: anyio.abc.TaskGroup) -> Callable[[], None]:
        """Return a function for Ctrl-C: it interrupts the cell, kills it at the second call, and stops waiting at the
        third one."""
        presses = 0

        def press() -> None:
            nonlocal presses
            presses += 1
            if presses == 1:
                tasks.start_soon(self._interrupt, name="interrupt")
            elif presses == 2 and printer.execution_id is not None:
                tasks.start_soon(self._kill, printer.execution_id, name="kill")
            else:
                tasks.cancel_scope.cancel()

        return press

    async def _interrupt(self) -> None:
        try:
            await self._session.interrupt()
        except PyexecError as error:
            self._console.error(f"cannot interrupt the code: {error} (press Ctrl-C again to kill it)")

    async def _kill(self, execution_id: str) -> None:
        self._console.error("killing the code (press Ctrl-C again to stop waiting)")
        try:
            await self._client.kill(execution_id)
        except PyexecError as error:
            self._console.error(f"cannot kill the code: {error} (press Ctrl-C again to stop waiting)")

    def _start_line(self) -> None:
        """On a terminal, end a line that the output has left open: a prompt in its middle confuses the editor."""
        if self._is_terminal and not self._console.at_line_start:
            print(flush=True)
            self._console.at_line_start = True

    async def _print(self, result: Result) -> int:
        self._start_line()
        if result.result not in (None, "None"):
            await self._console.write("stdout", f"{result.result}\n".encode())
        await output_displays(
            result, self._output_dir, self._console, show=True, show_text=True, first=self._displays + 1
        )
        self._displays += len(result.displays)
        exit_code = await print_result(result, self._console, as_json=False)
        self._is_closed = result.error_type == "session_closed"
        if result.interpreter_restarted:
            self._console.error("the interpreter is restarted; its variables are lost")
        return exit_code


def _sets_environment(flags: Flags) -> bool:
    """Return True if a flag is for a new session only. `--timeout` is for each cell of an open one."""
    return flags.image is not None or any(
        value is not None for name, value in flags.limits().items() if name != "timeout"
    )
