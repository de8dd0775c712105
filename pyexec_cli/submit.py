"""`submit`: send code, print the execution's id, and leave it to itself."""

from __future__ import annotations

import json

import asyncclick

from pyexec_client import AsyncClient, Source
from pyexec_client.options import RunOptions

from .console import Console
from .flags import Flags, with_flags
from .script import ScriptCommand, ScriptFlags, read_request, script_flags


@asyncclick.command(cls=ScriptCommand, name="submit")
@asyncclick.argument("argument", metavar="[INPUT]", required=False)
@script_flags(archive=True)
@with_flags
async def command(flags: Flags, script: ScriptFlags, argument: str | None) -> int:
    """Send code to be run, and print the execution's id alone."""
    console = Console(flags)
    source, options = await read_request(script, flags, argument, console)
    async with flags.client() as client:
        return await submit(client, source, options, console, as_json=script.as_json)


async def submit(
    client: AsyncClient, source: Source, options: RunOptions, console: Console, *, as_json: bool
) -> int:
    """Hand it over and print the id."""
    execution_id = await client.submit(source, **options)
    text = json.dumps({"execution_id": execution_id}) if as_json else execution_id
    await console.write("stdout", f"{text}\n".encode())
    return 0
