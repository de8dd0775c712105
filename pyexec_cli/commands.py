"""The root command with the global flags, and the commands `version` and `completion`."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import asyncclick

from .arguments import command_first
from .console import Console
from .flags import GLOBAL_FLAGS, Flags, complete_path, listed_options, with_flags

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncclick.shell_completion import CompletionItem

# The module and the function of each command. A module is loaded when its command is used, because the client's
# HTTP library is slow to load.
COMMANDS = {
    "run": ("run", "run"),
    "submit": ("run", "submit"),
    "follow": ("follow", "follow"),
    "logs": ("executions", "logs"),
    "kill": ("executions", "kill"),
    "list": ("executions", "list_executions"),
    "timeline": ("cluster", "timeline"),
    "cluster": ("cluster", "cluster"),
    "eval": ("run", "evaluate"),
    "session": ("sessions", "session"),
    "repl": ("repl", "repl"),
    "mcp": ("mcp", "mcp"),
    "version": ("commands", "version"),
    "completion": ("commands", "completion"),
}
_COMPLETION_VARIABLE = "_PYTHON_EXECUTOR_COMPLETE"  # asyncclick derives it from the program's name
_WITH_SCRIPT_ARGUMENTS = ("run", "submit", "eval")


class Commands(asyncclick.Group):
    """The commands, by name. If the arguments contain no command, they are arguments of `run`."""

    def list_commands(self, ctx: asyncclick.Context) -> list[str]:  # noqa: ARG002 signature of the base class
        return list(COMMANDS)

    def get_command(self, ctx: asyncclick.Context, cmd_name: str) -> asyncclick.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name]
        with nullcontext() if _may_use_tls() else _no_certificate_authorities():
            command: asyncclick.Command = getattr(
                importlib.import_module(f".{module}", __package__), function
            )
        return command

    async def parse_args(self, ctx: asyncclick.Context, args: list[str]) -> list[str]:
        def run_params() -> Sequence[asyncclick.Parameter]:
            command = self.get_command(ctx, "run")
            return command.params if command else []

        arguments = command_first(args, COMMANDS, self.params, run_params, completing=ctx.resilient_parsing)
        return await super().parse_args(ctx, arguments)

    async def resolve_command(
        self, ctx: asyncclick.Context, args: list[str]
    ) -> tuple[str | None, asyncclick.Command | None, list[str]]:
        # Only `help NAME` leads to an unknown name. The base class suggests none: it does not know COMMANDS.
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise asyncclick.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return await super().resolve_command(ctx, args)

    async def invoke(self, ctx: asyncclick.Context) -> Any:
        try:
            return await super().invoke(ctx)
        except asyncclick.NoSuchOption as error:
            if error.option_name == "-c":
                text = f"{error.format_message()} eval runs source text."
                raise asyncclick.UsageError(text, error.ctx) from error
            if error.possibilities and error.ctx is not None:
                listed = listed_options(error.ctx)
                error = asyncclick.NoSuchOption(error.option_name, possibilities=listed, ctx=error.ctx)
            if error.ctx is None or error.ctx.info_name not in _WITH_SCRIPT_ARGUMENTS:
                raise error from None
            text = f"{error.format_message()} Arguments of the script go after --."
            raise asyncclick.UsageError(text, error.ctx) from error
        except asyncclick.UsageError as error:
            name = ctx.invoked_subcommand
            if error.ctx is None and name and (command := self.get_command(ctx, name)):
                # asyncclick's parser sets no context, and then the message has no usage line.
                context = asyncclick.Context(command, ctx, info_name=name)
                raise asyncclick.UsageError(error.format_message(), context) from error
            raise

    def shell_complete(self, ctx: asyncclick.Context, incomplete: str) -> list[CompletionItem[Any]]:
        return super().shell_complete(ctx, incomplete) or complete_path(ctx, None, incomplete)


def _may_use_tls() -> bool:
    """Return False if no argument and no variable of the environment can be the URL of a server with TLS."""
    return any("https:" in text.lower() for text in (*sys.argv, os.environ.get("PYEXEC_SERVER", "")))


@contextmanager
def _no_certificate_authorities() -> Iterator[None]:
    """Keep OpenSSL from loading certificate authorities. aiohttp loads them twice when it is imported, which takes a
    fifth of the time that a command takes to start (2026-11-27)."""
    variables = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    given = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(dict.fromkeys(variables, os.devnull))
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(given)


async def _print_version(ctx: asyncclick.Context, _option: asyncclick.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        asyncclick.echo(_version_text())
        await ctx.aexit()


@asyncclick.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@asyncclick.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli(**_flags: Any) -> None:
    """Run Python code in isolated sandboxes on a python-executor server.

    Without a command, the input is run: cat main.py | python-executor
    """


cli.params.extend(GLOBAL_FLAGS)


@asyncclick.command(name="version")
@with_flags(runs=False)
async def version(_flags: Flags) -> int:
    """Print the version."""
    asyncclick.echo(_version_text())
    return 0


def _version_text() -> str:
    # Loading this module takes half as long as everything else that `--version` needs.
    from importlib.metadata import version

    return f"python-executor {version('python-executor')}"


@asyncclick.command(name="completion")
@asyncclick.argument("shell", type=asyncclick.Choice(["bash", "zsh", "fish"]))
@with_flags(runs=False)
async def completion(flags: Flags, shell: str) -> int:
    """Print a shell completion script.

    For bash: source <(python-executor completion bash)
    """
    from asyncclick.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(f"asyncclick has no completion for {shell}")
    script = kind(cli, {}, "python-executor", _COMPLETION_VARIABLE).source()
    await Console(flags).write("stdout", script.encode())
    return 0
