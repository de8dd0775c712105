"""Flags of the commands that take code, and the request that they describe."""

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
from .unused_stdin import has_unused_stdin

_SCRIPT_ARGS = "pyexec_cli.script_args"

ENV_FLAG = asyncclick.option(
    "-e",
    "--env",
    multiple=True,
    metavar="K[=V]",
    help="Set an environment variable as K[=V]; without =V, use the local value (repeatable).",
)
PRE_COMMAND_FLAG = asyncclick.option(
    "--pre-command",
    "pre_commands",
    multiple=True,
    metavar="CMD",
    help="Run the shell command CMD as root during setup (repeatable).",
)

_COMMON = (
    asyncclick.option(
        "--requirements",
        metavar="FILE",
        shell_complete=complete_path,
        help="Install the packages listed in FILE before the run.",
    ),
    asyncclick.option(
        "--no-requirements",
        is_flag=True,
        help="Install neither the requirements.txt of the input nor the dependencies that the script names.",
    ),
    asyncclick.option(
        "--stdin",
        metavar="FILE",
        shell_complete=complete_path,
        help="Read the program's standard input from FILE; - means this command's standard input.",
    ),
    ENV_FLAG,
    PRE_COMMAND_FLAG,
    asyncclick.option(
        "--output-file",
        "output_files",
        multiple=True,
        metavar="GLOB",
        help="Download the files under /work that match GLOB (repeatable).",
    ),
    asyncclick.option(
        "--output-dir",
        metavar="DIR",
        shell_complete=complete_path,
        help="Save output files in DIR [default: .], and displays such as figures as display-1.png.",
    ),
    asyncclick.option(
        "--webhook-url",
        metavar="URL",
        help="Let the server send the result to URL when the execution has ended.",
    ),
    asyncclick.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON."),
)
_ARCHIVE = (
    asyncclick.option(
        "--displays", is_flag=True, help="Return what the program shows, such as figures of matplotlib."
    ),
    asyncclick.option(
        "--file",
        "files",
        multiple=True,
        metavar="PATH",
        shell_complete=complete_path,
        help="Send the file PATH, keeping its relative path (repeatable).",
    ),
    asyncclick.option("--entrypoint", metavar="PATH", help="Run the file at PATH inside the input."),
)


class ScriptCommand(asyncclick.Command):
    """A command that passes everything after `--` to the script."""

    allow_extra_args = True

    async def parse_args(self, ctx: asyncclick.Context, args: list[str]) -> list[str]:
        if "--" in args:
            split = args.index("--")
            args, ctx.meta[_SCRIPT_ARGS] = args[:split], tuple(args[split + 1 :])
        rest = await super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            name = ctx.params.get("argument")
            if name is not None and not ctx.params["files"] and inputs.is_missing(name):
                ctx.fail(f"{name}: {inputs.explain_missing(name)}")  # probably a mistyped command
            ctx.fail(f"unexpected argument {rest[0]!r}: put script arguments after --")
        return rest

    def format_usage(self, ctx: asyncclick.Context, formatter: asyncclick.HelpFormatter) -> None:
        pieces = [*self.collect_usage_pieces(ctx), "[-- SCRIPT ARGS]"]
        formatter.write_usage(ctx.command_path, " ".join(pieces))


@frozen(kw_only=True)
class ScriptFlags:
    """The values of the flags of `run`, `submit` and `eval`. `eval` lacks the flags that have defaults here."""

    requirements: str | None
    no_requirements: bool
    stdin: str | None
    env: tuple[str, ...]
    pre_commands: tuple[str, ...]
    output_files: tuple[str, ...]
    output_dir: str | None
    webhook_url: str | None
    as_json: bool
    script_args: tuple[str, ...]
    files: tuple[str, ...] = ()
    entrypoint: str | None = None
    displays: bool = False


_NOT_TEXT = "must be UTF-8 text; send binary data as a file"


def script_flags(
    *, archive: bool
) -> Callable[[Callable[..., Awaitable[int]]], Callable[..., Awaitable[int]]]:
    """Add these flags to a command, and pass them as one `ScriptFlags` in the argument `script`."""
    declared = (_ARCHIVE if archive else ()) + _COMMON

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
    """Convert the flags to request options. Raise UsageError for flags that are invalid or exclude each other."""
    for name in ("requirements", "stdin", "entrypoint", "output_dir", "webhook_url"):
        if getattr(script, name) == "":
            raise asyncclick.UsageError(f"--{name.replace('_', '-')}: must not be empty")
    if script.requirements and script.no_requirements:
        raise asyncclick.UsageError("--requirements and --no-requirements cannot be used together")
    if script.stdin == "-" and stdin_is_code:
        raise asyncclick.UsageError("--stdin -: the code is read from standard input already; give a file")
    check_requirements_source(script.requirements, stdin_is_code=stdin_is_code)
    if script.requirements == script.stdin == "-":
        raise asyncclick.UsageError("--requirements -: --stdin - reads standard input already; give a file")
    if not all(map(_is_text, script.script_args)):
        raise asyncclick.UsageError(f"arguments after --: {_NOT_TEXT}")
    listed = script.requirements
    return RunOptions(
        requirements=await inputs.read_requirements(listed, "--requirements") if listed else None,
        entrypoint=script.entrypoint,
        stdin=await inputs.read_text(script.stdin, "--stdin") if script.stdin else None,
        env=environment(script.env) or None,
        args=script.script_args or None,
        pre_commands=script.pre_commands or None,
        output_files=script.output_files or None,
        capture_displays=script.displays or None,
        webhook_url=script.webhook_url,
        inline_requirements=False if script.no_requirements else None,
        image=flags.image,
        **flags.limits(),
    )


def check_requirements_source(requirements: str | None, *, stdin_is_code: bool) -> None:
    """Raise UsageError if both the requirements and the code would be read from standard input."""
    if requirements == "-" and stdin_is_code:
        raise asyncclick.UsageError(
            "--requirements -: the code is read from standard input already; give a file"
        )


async def read_request(
    script: ScriptFlags, flags: Flags, argument: str | None, console: Console
) -> tuple[Source, RunOptions]:
    """Read the input and the options of `run` and `submit`."""
    chosen = await inputs.choose(argument, script.files)
    if chosen.unused is not None:
        console.info(f"ignoring {chosen.unused}: with --file, only the files that it names are sent")
    options = await read_options(script, flags, stdin_is_code=chosen.is_stdin)
    if chosen.requirements and not script.requirements and not script.no_requirements:
        console.info("installing the requirements.txt of the input (--no-requirements disables this)")
        options["requirements"] = chosen.requirements
    return await with_progress(chosen.source, console.status_line), options


def note_unused_stdin(script: ScriptFlags, argument: str | None, console: Console) -> None:
    """Print a note if standard input has data that no argument uses.

    Call this at the end of a command: at its start, the writer of a pipe may not have written anything yet.
    """
    code = script.files or (argument or "-",)
    if has_unused_stdin((*code, *filter(None, (script.stdin, script.requirements)))):
        console.info("ignoring standard input: --stdin - passes it to the program")


def environment(settings: Sequence[str]) -> dict[str, str]:
    """Return the variables that `--env` sets. Raise UsageError if one has no name or no value."""
    variables = {}
    for setting in settings:
        name, given, value = setting.partition("=")
        if not name:
            raise asyncclick.UsageError(f"--env {setting}: name missing before =")
        if not given and name not in os.environ:
            raise asyncclick.UsageError(f"--env {name}: not set in this environment; use {name}=VALUE")
        variables[name] = value if given else os.environ[name]
        if not _is_text(name + variables[name]):
            raise asyncclick.UsageError(f"--env {name}: {_NOT_TEXT}")
    return variables


def _is_text(value: str) -> bool:
    """Return False for an argument whose bytes are not UTF-8: Python decodes it with surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
