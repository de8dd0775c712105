"""The command line's outermost part: global flags, the commands, and `run` where none is named."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
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
        # A shell that asks how a first word may go on names no command yet, nor means `run`.
        ours = self._is_ours(args, otherwise=ctx.resilient_parsing)
        return await super().parse_args(ctx, args if ours else ["run", *args])

    def shell_complete(self, ctx: asyncclick.Context, incomplete: str) -> list[CompletionItem[Any]]:
        return super().shell_complete(ctx, incomplete) or complete_path(ctx, None, incomplete)

    def _is_ours(self, args: Sequence[str], *, otherwise: bool) -> bool:
        """Whether, after global flags, there is a command's name, or a flag that only the group has;
        `otherwise` if there is nothing at all."""
        words = iter(args)
        for word in words:
            if word in ("--help", "--version"):
                return True
            if word == "-" or not word.startswith("-"):
                return word in _MODULES
            if not self._skip_flag(word, words):
                return False
        return otherwise

    def _skip_flag(self, word: str, following: Iterator[str]) -> bool:
        """Step over a global flag and its value; False if it is none."""
        name, has_value, _ = word.partition("=")
        options = {text: option for option in self.params for text in option.opts}
        if not name.startswith("--") and len(name) > 2:
            return all(
                f"-{letter}" in options for letter in name[1:]
            )  # -qv; no short global flag takes a value
        option = options.get(name)
        if option is None or name == "--":
            return False
        if not has_value and not getattr(option, "is_flag", False):
            next(following, None)
        return True


async def _print_version(ctx: asyncclick.Context, _option: asyncclick.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .version import text

        asyncclick.echo(text())
        await ctx.aexit()


@asyncclick.group(
    cls=Commands,
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
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
@asyncclick.pass_context
def cli(ctx: asyncclick.Context, /, **given: Any) -> None:
    """Run Python in throw-away sandboxes on a python-executor server."""
    ctx.obj = given


cli.params.extend(GLOBAL_FLAGS)
