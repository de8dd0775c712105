"""`version`: which version this program is."""

from __future__ import annotations

import asyncclick

from .flags import Flags, with_flags


@asyncclick.command(name="version")
@with_flags(runs=False)
async def command(_flags: Flags) -> int:
    """Show the version."""
    asyncclick.echo(text())
    return 0


def text() -> str:
    # Half as long to load as all else that `--version` needs.
    from importlib.metadata import version

    return f"python-executor {version('python-executor')}"
