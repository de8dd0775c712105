"""`follow`: watch an execution to its end, and exit as its program does."""

from __future__ import annotations

from contextlib import aclosing

import asyncclick

from pyexec_client import AsyncClient, Result

from .console import Console
from .files import bring_back
from .flags import Flags, complete_path, with_flags
from .outcome import Live, conclude


@asyncclick.command(name="follow")
@asyncclick.argument("execution_id", metavar="ID")
@asyncclick.option("--tail", is_flag=True, help="Print the output as it comes, not at the end.")
@asyncclick.option(
    "--output-dir", metavar="DIR", shell_complete=complete_path, help="Bring its output files there."
)
@with_flags(runs=False)
async def command(flags: Flags, execution_id: str, tail: bool, output_dir: str | None) -> int:
    """Tell an execution's phases on standard error, print its output, and exit as its program did.

    Ctrl-C leaves; the execution goes on.
    """
    console = Console(flags)
    async with flags.client() as client:
        result = await _watch(client, execution_id, Live(console, output=tail, phases=True))
        if not tail:
            await _print_output(client, result, console)
        await _bring_files(client, result, output_dir, console)
        return await conclude(result, console, as_json=False)


async def _watch(client: AsyncClient, execution_id: str, live: Live) -> Result:
    async with aclosing(client.events(execution_id)) as events:
        async for event in events:
            await live.show(event)
    if live.result is None:
        raise AssertionError("an event stream ends with its last event or raises")
    return live.result


async def _print_output(client: AsyncClient, result: Result, console: Console) -> None:
    """The bytes themselves: the result's text has replaced what is not UTF-8."""
    for stream in ("stdout", "stderr"):
        if result.raw.get(stream):
            async with aclosing(client.logs(result.execution_id, stream=stream)) as chunks:
                async for chunk in chunks:
                    await console.write(stream, chunk)


async def _bring_files(client: AsyncClient, result: Result, output_dir: str | None, console: Console) -> None:
    """Where somebody asks for files and there are none, or there are some and nobody asks, say so."""
    if output_dir:
        if not result.files:
            console.note("it has no output files: submit --output-file named none, or none that it left")
        await bring_back(client, result, output_dir, console)
    elif result.files:
        console.note(f"it has output files: follow {result.execution_id} --output-dir DIR brings them")
