"""`list`: executions, newest first."""

from __future__ import annotations

import json
from contextlib import aclosing

import asyncclick

from pyexec_client import Result, Status

from .console import Console
from .flags import POSITIVE, Flags, with_flags

_ROW = "{:<36}  {:<9}  {:>4}  {:<20}  {:>10}\n"


@asyncclick.command(name="list")
@asyncclick.option("--status", type=asyncclick.Choice([str(status) for status in Status]), help="Only these.")
@asyncclick.option("--limit", type=POSITIVE, default=20, show_default=True, metavar="N", help="At most N.")
@asyncclick.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_flags(runs=False)
async def command(flags: Flags, status: str | None, limit: int, as_json: bool) -> int:
    """List executions, newest first."""
    console = Console(flags)
    if not as_json and not flags.quiet:
        await console.write("stdout", _ROW.format("ID", "STATUS", "EXIT", "CREATED", "DURATION").encode())
    async with flags.client() as client, aclosing(client.list(status=status, limit=limit)) as executions:
        async for execution in executions:
            line = json.dumps(execution.raw, ensure_ascii=False) + "\n" if as_json else _row(execution)
            await console.write("stdout", line.encode())
    return 0


def _row(execution: Result) -> str:
    created = execution.created_at
    return _ROW.format(
        execution.execution_id,
        execution.status,
        "" if execution.exit_code is None else execution.exit_code,
        f"{created:%Y-%m-%dT%H:%M:%SZ}" if created else "",
        "" if execution.duration_ms is None else f"{execution.duration_ms / 1000:.3f} s",
    )
