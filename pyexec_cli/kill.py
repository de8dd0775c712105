"""`kill`: end an execution."""

from __future__ import annotations

import asyncclick

from .console import Console
from .flags import Flags, with_flags


@asyncclick.command(name="kill")
@asyncclick.argument("execution_id", metavar="ID")
@with_flags(runs=False)
async def command(flags: Flags, execution_id: str) -> int:
    """End an execution, and print its status: killed, or what it had become by itself."""
    async with flags.client() as client:
        status = await client.kill(execution_id)
    await Console(flags).write("stdout", f"{status}\n".encode())
    return 0
