"""The command line's outermost part: global flags, the commands, and `run` where none is named."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncclick

from .flags import GLOBAL_FLAGS, complete_path

if TYPE_CHECKING:
    from asyncclick.shell_completion import CompletionItem

# A command's module is loaded when it is asked for: the client's HTTP library takes longest to load.
_MODULES = {
    "run": "run",
    "submit": "submit",
    "follow": "follow",
    "logs": "logs",
    "kill": "kill",
    "list": "listing",
    "eval": "evaluate",
    "version": "version",
    "completion": "completion",
}


class Commands(asyncclick.Group):
    """The commands. Arguments that name none are `run`'s."""

    def list_commands(self, ctx: asyncclick.Context) -> list[str]:  # noqa: ARG002 the base class' signature
        return list(_MODULES)

    def get_command(self, ctx: asyncclick.Context, cmd_name: str) -> asyncclick.Command | None:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f".{_MODULES[cmd_name]}", __package__)
        command: asyncclick.Command = module.command
        return command

    async def parse_args(self, ctx: asyncclick.Context, args: list[str]) -> list[str]:
        return await super().parse_args(ctx, self._with_command_first(ctx, args))

    def shell_complete(self, ctx: asyncclick.Context, incomplete: str) -> list[CompletionItem[Any]]:
        return super().shell_complete(ctx, incomplete) or complete_path(ctx, None, incomplete)

    def _with_command_first(self, ctx: asyncclick.Context, args: list[str]) -> list[str]:
        """The same with the command's name in front: the first word that is no flag and no flag's value, or
        `run` where that names no command."""
        if args[:1] == ["help"]:
            return [*(word for word in args[1:2] if word in _MODULES), "--help"]
        flags, all_global = _takes_value(self), True
        words = iter(enumerate(args))
        for position, word in words:
            if all_global and word in ("-h", "--help", "--version"):
                return args
            if word == "-" or not word.startswith("-"):
                if word in _MODULES:
                    return [word, *args[:position], *args[position + 1 :]]
                break
            if all_global and _goes_on(word, flags) is None:
                flags, all_global = _takes_value(self.get_command(ctx, "run")), False
            goes_on = _goes_on(word, flags)
            if goes_on is None:
                break
            if goes_on:
                next(words, None)
        else:
            # A shell that asks how a first word may go on names no command yet, nor means `run`.
            if all_global and ctx.resilient_parsing:
                return args
        return ["run", *args]


def _takes_value(command: asyncclick.Command | None) -> dict[str, bool]:
    """Whether a flag takes a value, by its names."""
    options = command.params if command else []
    return {name: not getattr(option, "is_flag", False) for option in options for name in option.opts}


def _goes_on(word: str, flags: Mapping[str, bool]) -> bool | None:
    """Whether the next word is the value of this flag; None if there is no such flag."""
    if word.startswith("--"):
        name, has_value, _ = word.partition("=")
        return not has_value and flags[name] if name in flags else None
    for position, letter in enumerate(word[1:], 2):  # -qv, -eNAME=value
        takes_value = flags.get(f"-{letter}")
        if takes_value is None:
            return None
        if takes_value:
            return position == len(word)
    return False


async def _print_version(ctx: asyncclick.Context, _option: asyncclick.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .version import text

        asyncclick.echo(text())
        await ctx.aexit()


@asyncclick.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command: run. `cat main.py | python-executor` runs what it reads.",
)
@asyncclick.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli(**_flags: Any) -> None:
    """Run Python in throw-away sandboxes on a python-executor server."""


cli.params.extend(GLOBAL_FLAGS)
