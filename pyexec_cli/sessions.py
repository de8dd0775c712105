"""The group `session`, and its commands that open, list, show, interrupt, restart and close sessions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncclick

from pyexec_client import SessionInfo

from . import inputs, session_files
from .arguments import command_first
from .console import Console
from .exit_codes import OutputFailed
from .flags import Flags, complete_path, with_flags
from .interrupts import interruptible
from .printable import printable, printable_json
from .progress import with_progress
from .session_flags import SessionFlags, read_session_options, session_flags
from .session_opening import Opening, close_session
from .table import table

if TYPE_CHECKING:
    from pyexec_client.source import Source

_HEADINGS = ("ID", "STATUS", "CREATED", "WAITING", "IMAGE")


class SessionCommands(asyncclick.Group):
    """The commands, by name. Global flags may come before the name, as for other commands."""

    async def parse_args(self, ctx: asyncclick.Context, args: list[str]) -> list[str]:
        moved = command_first(args, self.commands, new.params, list, completing=ctx.resilient_parsing)
        return await super().parse_args(ctx, args if moved[:1] == ["run"] else moved)


@asyncclick.group(name="session", cls=SessionCommands)
def session() -> None:
    """Open, use and close interpreter sessions."""


for _command in (session_files.files, session_files.upload, session_files.download, session_files.delete):
    session.add_command(_command)


@session.command(name="new")
@asyncclick.argument("argument", metavar="[INPUT]", required=False, shell_complete=complete_path)
@session_flags
@asyncclick.option("--json", "as_json", is_flag=True, help="Print the session as one line of JSON.")
@with_flags(runs=True)
async def new(flags: Flags, settings: SessionFlags, argument: str | None, as_json: bool) -> int:
    """Open a session and print its ID.

    The files of INPUT, a file, a directory or a .tar archive, are put into its working directory.
    """
    console = Console(flags)
    options = await read_session_options(settings, flags, stdin_is_code=argument == "-")
    source: Source | None = None
    if argument is not None:
        chosen = await inputs.choose(argument, (), lambda _: "no such file or directory")
        source = await with_progress(chosen.source, console.status_line)
    opening = Opening(console)
    async with flags.client() as client:

        async def open_and_print() -> int:
            opened = await opening.open(client, source, options)
            if opened is not None:
                text = _json(opened.info) if as_json else printable(opened.id)
                try:
                    await console.write("stdout", f"{text}\n".encode())
                except OutputFailed:
                    await close_session(opened)
                    raise
            return 0

        async def on_interrupt() -> bool:
            await opening.on_interrupt()
            return True  # a session that is open is printed

        return await interruptible(open_and_print, on_interrupt)


@session.command(name="list")
@asyncclick.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_flags(runs=False)
async def list_sessions(flags: Flags, as_json: bool) -> int:
    """List sessions."""
    console = Console(flags)
    async with flags.client() as client:
        found = await client.sessions()
    if as_json:
        lines = [_json(each) for each in found]
    else:
        lines = table(_HEADINGS, [_row(each) for each in found], not flags.quiet)
    await console.write("stdout", "".join(f"{line}\n" for line in lines).encode())
    return 0


@session.command(name="show")
@asyncclick.argument("session_id", metavar="ID")
@with_flags(runs=False)
async def show(flags: Flags, session_id: str) -> int:
    """Print a session as one line of JSON."""
    async with flags.client() as client:
        found = await client.get_session(session_id)
    await Console(flags).write("stdout", f"{_json(found.info)}\n".encode())
    return 0


@session.command(name="interrupt")
@asyncclick.argument("session_id", metavar="ID")
@with_flags(runs=False)
async def interrupt(flags: Flags, session_id: str) -> int:
    """Interrupt the code that runs in a session; the variables stay.

    Prints interrupted, or idle if no code runs.
    """
    async with flags.client() as client:
        interrupted = await (await client.get_session(session_id)).interrupt()
    await Console(flags).write("stdout", b"interrupted\n" if interrupted else b"idle\n")
    return 0


@session.command(name="restart")
@asyncclick.argument("session_id", metavar="ID")
@with_flags(runs=False)
async def restart(flags: Flags, session_id: str) -> int:
    """Start a new interpreter in a session: the files stay, the variables are lost."""
    async with flags.client() as client:
        await (await client.get_session(session_id)).restart()
    await Console(flags).write("stdout", b"restarted\n")
    return 0


@session.command(name="close")
@asyncclick.argument("session_id", metavar="ID")
@with_flags(runs=False)
async def close(flags: Flags, session_id: str) -> int:
    """Close a session: end its code, delete its files, and print its status."""
    async with flags.client() as client:
        found = await client.get_session(session_id)
        info = await found.close() if found.info.is_open else found.info
    await Console(flags).write("stdout", f"{printable(info.status)}\n".encode())
    return 0


def _json(info: SessionInfo) -> str:
    return printable_json(json.dumps(info.raw, ensure_ascii=False))


def _row(info: SessionInfo) -> tuple[str, ...]:
    created = f"{info.created_at:%Y-%m-%dT%H:%M:%SZ}" if info.created_at else ""
    return (info.id, info.status, created, f"{info.cells_waiting:>7}", info.docker_image or "")
