"""The commands that take code: `run`, `submit` and `eval`."""

from __future__ import annotations

import json
import os

import asyncclick

from pyexec_client import AsyncClient, PyexecError, Source
from pyexec_client.options import RunOptions

from . import inputs
from .console import Console
from .displays import declared_protocol, output_displays
from .event_printer import EventPrinter, naming_lost_execution, print_result
from .exit_codes import OutputFailed
from .flags import Flags, complete_path, with_flags
from .interrupts import interruptible
from .output_files import download_output_files
from .printable import printable
from .script_flags import (
    ScriptCommand,
    ScriptFlags,
    note_unused_stdin,
    read_options,
    read_request,
    script_flags,
)


@asyncclick.command(cls=ScriptCommand, name="run")
@asyncclick.argument("argument", metavar="[INPUT]", required=False, shell_complete=complete_path)
@script_flags(archive=True)
@with_flags(runs=True, detaches=True)
async def run(flags: Flags, script: ScriptFlags, argument: str | None) -> int:
    """Run code and exit with the program's exit code.

    INPUT is a file, a directory or a .tar archive. Without INPUT, or if it is -, the code is read
    from standard input. Ctrl-C kills the execution; a second Ctrl-C exits at once.
    """
    console = Console(flags)
    if flags.detached:
        return await _submit(flags, script, argument, console)
    source, options = await read_request(script, flags, argument, console)
    if script.output_dir or (not script.as_json and declared_protocol()):
        options["capture_displays"] = True
    async with flags.client() as client:
        try:
            exit_code = await _run(client, source, options, console, script)
        finally:
            console.status_line.close()
    note_unused_stdin(script, argument, console)
    return exit_code


@asyncclick.command(cls=ScriptCommand, name="submit")
@asyncclick.argument("argument", metavar="[INPUT]", required=False, shell_complete=complete_path)
@script_flags(archive=True)
@with_flags(runs=True, detaches=True)
async def submit(flags: Flags, script: ScriptFlags, argument: str | None) -> int:
    """Submit code and print the execution ID, without waiting.

    INPUT is a file, a directory or a .tar archive. Without INPUT, or if it is -, the code is read
    from standard input.
    """
    return await _submit(flags, script, argument, Console(flags))


@asyncclick.command(cls=ScriptCommand, name="eval")
@asyncclick.argument("code")
@script_flags(archive=False)
@with_flags(runs=True)
async def evaluate(flags: Flags, script: ScriptFlags, code: str) -> int:
    """Run CODE and print the value of its last expression.

    If CODE is -, the code is read from standard input.
    """
    if flags.detached:
        raise asyncclick.UsageError("--async: eval waits for the value; use run or submit")
    console = Console(flags)
    text = await inputs.read_text("-", "CODE") if code == "-" else code
    _note_file_name(code, console)
    options = await read_options(script, flags, stdin_is_code=code == "-")
    async with flags.client() as client:
        result = await client.eval(text, **options)
        if not script.as_json:
            await console.write("stdout", result.stdout.encode())
            # If the program did not start, stderr is the output of the setup.
            stderr = result.stderr if result.started_at else printable(result.stderr)
            await console.write("stderr", stderr.encode())
            if result.result not in (None, "None"):
                await console.write("stdout", f"{result.result}\n".encode())
        await download_output_files(client, result, script.output_dir or ".", console)
        await output_displays(result, script.output_dir, console, show=not script.as_json)
        exit_code = await print_result(result, console, as_json=script.as_json)
    note_unused_stdin(script, code, console)
    return exit_code


def _note_file_name(code: str, console: Console) -> None:
    if os.path.isfile(code):
        console.info(f"{printable(code)} is evaluated as source text; to run the file of this name, use run")


async def _run(
    client: AsyncClient, source: Source, options: RunOptions, console: Console, script: ScriptFlags
) -> int:
    printer = EventPrinter(console, output=not script.as_json)

    async def execute() -> int:
        result = await client.run(source, on_event=printer.show, **options)
        await download_output_files(client, result, script.output_dir or ".", console)
        await output_displays(result, script.output_dir, console, show=not script.as_json)
        return await print_result(result, console, as_json=script.as_json)

    async def on_interrupt() -> bool:
        if printer.execution_id is None:
            return False  # closing the connection is enough: the server then kills the execution
        console.info(f"killing {printer.execution_id} (press Ctrl-C again to exit at once)")
        return await _kill(client, printer.execution_id, console)

    try:
        with naming_lost_execution(printer):
            return await interruptible(execute, on_interrupt)
    except OutputFailed:
        # The output can no longer be written, so the execution is of no use.
        if printer.execution_id is not None and printer.result is None:
            await _kill(client, printer.execution_id, console)
        raise


async def _kill(client: AsyncClient, execution_id: str, console: Console) -> bool:
    """Kill the execution and return True, or print the error and return False."""
    try:
        await client.kill(execution_id)
    except PyexecError as error:
        console.error(f"cannot kill {execution_id}: {error}")
        return False
    return True


async def _submit(flags: Flags, script: ScriptFlags, argument: str | None, console: Console) -> int:
    if script.output_dir:
        raise asyncclick.UsageError(
            "--output-dir: submit does not wait for output files; use follow ID --output-dir DIR"
        )
    source, options = await read_request(script, flags, argument, console)
    async with flags.client() as client:
        try:
            execution_id = await client.submit(source, **options)
        finally:
            console.status_line.close()
    text = json.dumps({"execution_id": execution_id}) if script.as_json else execution_id
    await console.write("stdout", f"{text}\n".encode())
    note_unused_stdin(script, argument, console)
    return 0
