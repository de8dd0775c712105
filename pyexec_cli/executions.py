"""The commands `logs`, `kill` and `list`."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Literal

import asyncclick

from pyexec_client import Result, Status

from .console import Console
from .flags import POSITIVE, Flags, with_flags
from .printable import printable, printable_json

_ROW = "{:<36}  {:<9}  {:>4}  {:<20}  {:>10}"


@asyncclick.command(name="logs")
@asyncclick.argument("execution_id", metavar="ID")
@asyncclick.option("--follow", is_flag=True, help="Keep printing until the execution ends.")
@asyncclick.option("--stream", type=asyncclick.Choice(["stdout", "stderr"]), help="Print only this stream.")
@with_flags(runs=False)
async def logs(
    flags: Flags, execution_id: str, follow: bool, stream: Literal["stdout", "stderr"] | None
) -> int:
    """Print the output of an execution.

    Standard output and standard error are printed in the order in which they were written.
    """
    console = Console(flags)
    async with (
        flags.client() as client,
        aclosing(client.logs(execution_id, stream=stream, follow=follow)) as chunks,
    ):
        async for chunk in chunks:
            await console.write("stdout", chunk)
    return 0


@asyncclick.command(name="kill")
@asyncclick.argument("execution_id", metavar="ID")
@with_flags(runs=False)
async def kill(flags: Flags, execution_id: str) -> int:
    """Kill an execution and print its status.

    The status is killed, or the final status of an execution that had already ended.
    """
    async with flags.client() as client:
        status = await client.kill(execution_id)
    await Console(flags).write("stdout", f"{printable(status)}\n".encode())
    return 0


@asyncclick.command(name="list")
@asyncclick.option(
    "--status",
    type=asyncclick.Choice([str(status) for status in Status]),
    help="Show only executions with this status.",
)
@asyncclick.option(
    "--limit", type=POSITIVE, default=20, metavar="N", help="Show at most N executions (default 20)."
)
@asyncclick.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_flags(runs=False)
async def list_executions(flags: Flags, status: str | None, limit: int, as_json: bool) -> int:
    """List executions, newest first."""
    console = Console(flags)
    heading = (
        "" if as_json or flags.quiet else _ROW.format("ID", "STATUS", "EXIT", "CREATED", "DURATION") + "\n"
    )
    async with flags.client() as client, aclosing(client.list(status=status, limit=limit)) as executions:
        async for execution in executions:
            line = (
                printable_json(json.dumps(execution.raw, ensure_ascii=False)) if as_json else _row(execution)
            )
            await console.write("stdout", f"{heading}{line}\n".encode())
            heading = ""
    await console.write("stdout", heading.encode())
    return 0


def _row(execution: Result) -> str:
    created = execution.created_at
    row = _ROW.format(
        execution.execution_id,
        execution.status,
        "" if execution.exit_code is None else execution.exit_code,
        f"{created:%Y-%m-%dT%H:%M:%SZ}" if created else "",
        "" if execution.duration_ms is None else f"{execution.duration_ms / 1000:.3f} s",
    )
    return printable(row)
