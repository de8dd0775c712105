"""The command `follow`."""

from __future__ import annotations

from contextlib import aclosing

import asyncclick

from pyexec_client import AsyncClient, Result

from .console import Console
from .displays import output_displays
from .event_printer import EventPrinter, naming_lost_execution, print_result
from .flags import Flags, complete_path, with_flags
from .output_files import download_output_files
from .printable import printable
from .skipped_files import print_skipped_files


@asyncclick.command(name="follow")
@asyncclick.argument("execution_id", metavar="ID")
@asyncclick.option("--tail", is_flag=True, help="Print output as it arrives, not at the end.")
@asyncclick.option(
    "--output-dir",
    metavar="DIR",
    shell_complete=complete_path,
    help="Download the output files and the displays to DIR.",
)
@with_flags(runs=False)
async def follow(flags: Flags, execution_id: str, tail: bool, output_dir: str | None) -> int:
    """Follow an execution and exit with its exit code.

    Phases are printed on standard error. Ctrl-C stops following; the execution continues.
    """
    console = Console(flags)
    async with flags.client() as client:
        printer = EventPrinter(console, output=tail, phases=True)
        with naming_lost_execution(printer):
            result = await _watch(client, execution_id, printer)
        if not tail:
            await _print_output(client, result, console, printer)
        await _download_files(client, result, output_dir, console)
        return await print_result(result, console, as_json=False)


async def _watch(client: AsyncClient, execution_id: str, printer: EventPrinter) -> Result:
    async with aclosing(client.events(execution_id)) as events:
        async for event in events:
            await printer.show(event)
    if printer.result is None:
        raise AssertionError("an event stream ends with Ended or raises")
    return printer.result


async def _print_output(client: AsyncClient, result: Result, console: Console, printer: EventPrinter) -> None:
    """Print the raw bytes of the streams that are not printed yet. In the result, invalid UTF-8 is replaced."""
    if not printer.started:  # it has only the output of the setup
        if "stderr" not in printer.printed:
            await console.write("stderr", printable(result.stderr).encode())
        return
    for stream in ("stdout", "stderr"):
        if result.raw.get(stream) and stream not in printer.printed:
            async with aclosing(client.logs(result.execution_id, stream=stream)) as chunks:
                async for chunk in chunks:
                    await console.write(stream, chunk)


async def _download_files(
    client: AsyncClient, result: Result, output_dir: str | None, console: Console
) -> None:
    """Download the output files if `--output-dir` was given; otherwise print how to get them."""
    if output_dir:
        if not result.files and not result.files_skipped and not result.displays:
            console.info("no output files: submit had no --output-file, or no file matched")
        await download_output_files(client, result, output_dir, console)
        await output_displays(result, output_dir, console, show=False)
        return
    print_skipped_files(result, console)
    if result.files:
        console.info(f"output files available: use follow {result.execution_id} --output-dir DIR")
    await output_displays(result, None, console, show=False)
