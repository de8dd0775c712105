"""`logs`: an execution's output, byte for byte."""

from __future__ import annotations

from contextlib import aclosing
from typing import Literal

import asyncclick

from .console import Console
from .flags import Flags, with_flags


@asyncclick.command(name="logs")
@asyncclick.argument("execution_id", metavar="ID")
@asyncclick.option("--follow", is_flag=True, help="Go on until the execution ends.")
@asyncclick.option("--stream", type=asyncclick.Choice(["stdout", "stderr"]), help="Only this one of the two.")
@with_flags(runs=False)
async def command(
    flags: Flags, execution_id: str, follow: bool, stream: Literal["stdout", "stderr"] | None
) -> int:
    """Print what an execution has written, both streams in the order they came."""
    console = Console(flags)
    async with (
        flags.client() as client,
        aclosing(client.logs(execution_id, stream=stream, follow=follow)) as chunks,
    ):
        async for chunk in chunks:
            await console.write("stdout", chunk)
    return 0
