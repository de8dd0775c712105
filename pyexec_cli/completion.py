"""`completion`: the script that makes a shell complete our commands and flags."""

from __future__ import annotations

import asyncclick

from .console import Console
from .flags import Flags, with_flags

_VARIABLE = "_PYTHON_EXECUTOR_COMPLETE"  # what asyncclick derives from the program's name


@asyncclick.command(name="completion")
@asyncclick.argument("shell", type=asyncclick.Choice(["bash", "zsh", "fish"]))
@with_flags(runs=False)
async def command(flags: Flags, shell: str) -> int:
    """Print the script that makes a shell complete our commands and flags.

    For bash: `source <(python-executor completion bash)`.
    """
    from asyncclick.shell_completion import get_completion_class

    from .group import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(f"asyncclick knows no completion for {shell}")
    script = kind(cli, {}, "python-executor", _VARIABLE).source()
    await Console(flags).write("stdout", script.encode())
    return 0
