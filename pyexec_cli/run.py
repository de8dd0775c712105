"""`run`: send code, show its output as it comes, exit as it did."""

from __future__ import annotations

import asyncclick

from pyexec_client import AsyncClient, PyexecError, Source
from pyexec_client.options import RunOptions

from . import exits
from .console import Console
from .files import bring_back
from .flags import Flags, complete_path, with_flags
from .interrupts import interruptible
from .outcome import Live, conclude
from .script import ScriptCommand, ScriptFlags, read_request, script_flags
from .submit import submit


@asyncclick.command(cls=ScriptCommand, name="run")
@asyncclick.argument("argument", metavar="[INPUT]", required=False, shell_complete=complete_path)
@script_flags(archive=True)
@with_flags(runs=True)
async def command(flags: Flags, script: ScriptFlags, argument: str | None) -> int:
    """Run a file, a directory, a .tar, or standard input, and exit as the program does.

    Ctrl-C ends the run; a second one leaves at once.
    """
    console = Console(flags)
    if flags.detached:
        return await submit(flags, script, argument, console)
    source, options = await read_request(script, flags, argument, console)
    async with flags.client() as client:
        try:
            return await _run(client, source, options, console, script)
        finally:
            console.line.end()


async def _run(
    client: AsyncClient, source: Source, options: RunOptions, console: Console, script: ScriptFlags
) -> int:
    live = Live(console, output=not script.as_json)

    async def story() -> int:
        result = await client.run(source, on_event=live.show, **options)
        await bring_back(client, result, script.output_dir or ".", console)
        return await conclude(result, console, as_json=script.as_json)

    async def stop() -> bool:
        if live.execution_id is None:
            return False  # hanging up ends whatever there may be
        console.note(f"killing {live.execution_id} (Ctrl-C again leaves at once)")
        return await _kill(client, live.execution_id, console)

    try:
        return await interruptible(story, stop)
    except exits.OutputFailed:
        # Nobody can read what it prints any more.
        if live.execution_id is not None and live.result is None:
            await _kill(client, live.execution_id, console)
        raise


async def _kill(client: AsyncClient, execution_id: str, console: Console) -> bool:
    """Whether it could be asked for."""
    try:
        await client.kill(execution_id)
    except PyexecError as problem:
        console.problem(f"{execution_id} could not be killed: {problem}")
        return False
    return True
