"""`eval`: run a line of code and print its value."""

from __future__ import annotations

import asyncclick

from . import inputs
from .console import Console
from .files import bring_back
from .flags import Flags, with_flags
from .outcome import conclude
from .script import ScriptCommand, ScriptFlags, read_options, script_flags


@asyncclick.command(cls=ScriptCommand, name="eval")
@asyncclick.argument("code")
@script_flags(archive=False)
@with_flags(runs=True)
async def command(flags: Flags, script: ScriptFlags, code: str) -> int:
    """Run CODE (- reads standard input) and print what it prints, then its last expression's value."""
    if flags.detached:
        raise asyncclick.UsageError("eval waits for its value: --async is for run and submit")
    console = Console(flags)
    text = await inputs.read_text("-", "CODE") if code == "-" else code
    options = await read_options(script, flags, stdin_is_code=code == "-")
    async with flags.client() as client:
        result = await client.eval(text, **options)
        if not script.as_json:
            await console.write("stdout", result.stdout.encode())
            await console.write("stderr", result.stderr.encode())
            if result.result not in (None, "None"):
                await console.write("stdout", f"{result.result}\n".encode())
        await bring_back(client, result, script.output_dir or ".", console)
        return await conclude(result, console, as_json=script.as_json)
