"""`submit`: send code, print the execution's id, and leave it to itself."""

from __future__ import annotations

import json

import asyncclick

from .console import Console
from .flags import Flags, complete_path, with_flags
from .script import ScriptCommand, ScriptFlags, read_request, script_flags


@asyncclick.command(cls=ScriptCommand, name="submit")
@asyncclick.argument("argument", metavar="[INPUT]", required=False, shell_complete=complete_path)
@script_flags(archive=True)
@with_flags(runs=True)
async def command(flags: Flags, script: ScriptFlags, argument: str | None) -> int:
    """Send code to be run, and print the execution's id alone."""
    return await submit(flags, script, argument, Console(flags))


async def submit(flags: Flags, script: ScriptFlags, argument: str | None, console: Console) -> int:
    """Hand it over and print the id."""
    if script.output_dir:
        raise asyncclick.UsageError(
            "--output-dir: nothing is waited for here; to bring the files, use follow ID --output-dir DIR"
        )
    source, options = await read_request(script, flags, argument, console)
    async with flags.client() as client:
        try:
            execution_id = await client.submit(source, **options)
        finally:
            console.line.end()
    text = json.dumps({"execution_id": execution_id}) if script.as_json else execution_id
    await console.write("stdout", f"{text}\n".encode())
    return 0
