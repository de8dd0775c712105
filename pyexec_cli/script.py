"""Flags of the commands that take code, and the request they amount to."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncclick
from attrs import frozen

from pyexec_client.options import RunOptions
from pyexec_client.source import Source

from . import inputs
from .console import Console
from .flags import Flags, complete_path
from .progress import with_progress

_SCRIPT_ARGS = "pyexec_cli.script_args"

_COMMON = (
    asyncclick.option(
        "--requirements",
        metavar="FILE",
        shell_complete=complete_path,
        help="Install what this requirements.txt lists before the run.",
    ),
    asyncclick.option(
        "--stdin",
        metavar="FILE",
        shell_complete=complete_path,
        help="What the program reads; - is this command's own input.",
    ),
    asyncclick.option(
        "-e", "--env", multiple=True, metavar="K[=V]", help="Set a variable; without =V to its value here."
    ),
    asyncclick.option(
        "--pre-command",
        "pre_commands",
        multiple=True,
        metavar="CMD",
        help="Run CMD as root first (repeatable).",
    ),
    asyncclick.option(
        "--output-file",
        "output_files",
        multiple=True,
        metavar="GLOB",
        help="Bring back the files below /work that match GLOB (repeatable).",
    ),
    asyncclick.option(
        "--output-dir", metavar="DIR", shell_complete=complete_path, help="Where to put them.  [default: .]"
    ),
    asyncclick.option("--json", "as_json", is_flag=True, help="Print the result as JSON, at the end."),
)
_ARCHIVE = (
    asyncclick.option(
        "--file",
        "files",
        multiple=True,
        metavar="PATH",
        shell_complete=complete_path,
        help="Send this file under its relative path (repeatable).",
    ),
    asyncclick.option("--entrypoint", metavar="PATH", help="Which file of the input to run."),
    asyncclick.option(
        "--no-requirements", is_flag=True, help="Leave the requirements.txt at the input's root alone."
    ),
)


class ScriptCommand(asyncclick.Command):
    """A command where everything after `--` belongs to the script."""

    allow_extra_args = True

    async def parse_args(self, ctx: asyncclick.Context, args: list[str]) -> list[str]:
        if "--" in args:
            split = args.index("--")
            args, ctx.meta[_SCRIPT_ARGS] = args[:split], tuple(args[split + 1 :])
        rest = await super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            ctx.fail(f"unexpected argument {rest[0]!r}: the script's own arguments go after --")
        return rest

    def format_usage(self, ctx: asyncclick.Context, formatter: asyncclick.HelpFormatter) -> None:
        pieces = [*self.collect_usage_pieces(ctx), "[-- SCRIPT ARGS]"]
        formatter.write_usage(ctx.command_path, " ".join(pieces))


@frozen(kw_only=True)
class ScriptFlags:
    """What the flags of `run`, `submit` and `eval` say; `eval` has no archive, hence the defaults."""

    requirements: str | None
    stdin: str | None
    env: tuple[str, ...]
    pre_commands: tuple[str, ...]
    output_files: tuple[str, ...]
    output_dir: str | None
    as_json: bool
    script_args: tuple[str, ...]
    files: tuple[str, ...] = ()
    entrypoint: str | None = None
    no_requirements: bool = False


def script_flags(
    *, archive: bool
) -> Callable[[Callable[..., Awaitable[int]]], Callable[..., Awaitable[int]]]:
    """Give a command these flags, as one `ScriptFlags` in `script`."""
    declared = _COMMON + (_ARCHIVE if archive else ())

    def decorate(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
        @functools.wraps(function)
        async def command(*positional: Any, **given: Any) -> int:
            own = {name: given.pop(name) for name in ScriptFlags.__annotations__ if name in given}
            own["script_args"] = asyncclick.get_current_context().meta.get(_SCRIPT_ARGS, ())
            return await function(*positional, script=ScriptFlags(**own), **given)

        for option in reversed(declared):
            command = option(command)
        return command

    return decorate


async def read_options(script: ScriptFlags, flags: Flags, *, stdin_is_code: bool) -> RunOptions:
    """The request's options; UsageError where flags do not fit, or a flag's file or variable is not there."""
    if script.output_dir and not script.output_files:
        raise asyncclick.UsageError("--output-dir: name what to bring back with --output-file")
    if script.stdin == "-" and stdin_is_code:
        raise asyncclick.UsageError("--stdin -: the code itself comes from there already; name a file")
    options = RunOptions(
        entrypoint=script.entrypoint,
        stdin=await inputs.read_text(script.stdin, "--stdin") if script.stdin else None,
        env=_environment(script.env) or None,
        args=script.script_args or None,
        pre_commands=script.pre_commands or None,
        output_files=script.output_files or None,
        **flags.options(),
    )
    if script.requirements:
        options["requirements"] = await inputs.read_text(script.requirements, "--requirements")
    return options


async def read_request(
    script: ScriptFlags, flags: Flags, argument: str | None, console: Console
) -> tuple[Source, RunOptions]:
    """What to run and how, as `run` and `submit` take it."""
    if script.requirements and script.no_requirements:
        raise asyncclick.UsageError("--requirements and --no-requirements exclude each other")
    chosen = await inputs.choose(argument, script.files)
    if chosen.unused is not None:
        console.note(f"--file was given: {chosen.unused} is not used")
    options = await read_options(script, flags, stdin_is_code=chosen.is_stdin)
    if chosen.requirements and not script.requirements and not script.no_requirements:
        console.note("installing the input's requirements.txt (--no-requirements leaves it alone)")
        options["requirements"] = chosen.requirements
    return await with_progress(chosen.source, console.line), options


def _environment(words: Sequence[str]) -> dict[str, str]:
    variables = {}
    for word in words:
        name, given, value = word.partition("=")
        if not name:
            raise asyncclick.UsageError(f"--env {word}: there is no name before the =")
        if not given and name not in os.environ:
            raise asyncclick.UsageError(f"--env {name}: it is not set here; write {name}=VALUE")
        variables[name] = value if given else os.environ[name]
    return variables
