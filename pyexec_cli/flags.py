"""The global flags, before or after the name of a command. Those of a run are for commands that run code."""

from __future__ import annotations

import copy
import functools
import math
import os
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncclick
from attrs import fields, frozen

if TYPE_CHECKING:
    from asyncclick.shell_completion import CompletionItem

    from pyexec_client import AsyncClient
    from pyexec_client.options import Limits


_OTHER_NUMBER = re.compile(r"[^!-~]|_")
"""Matches numbers that Python's `int` and `float` accept, but the Go program rejects."""
_UNITS = {
    **dict.fromkeys(("--timeout", "--cpu-seconds", "--idle-timeout", "--lifetime"), ", in seconds"),
    **dict.fromkeys(("--memory", "--disk"), ", in MiB"),
}


class _Number(asyncclick.ParamType[float]):
    """A flag type: `parse` converts the text, `allowed` checks the number, `expected` describes it in errors."""

    name = "number"

    def __init__(
        self, parse: Callable[[str], float], allowed: Callable[[float], bool], expected: str
    ) -> None:
        self._parse, self._allowed, self._expected = parse, allowed, expected

    def convert(
        self, value: Any, param: asyncclick.Parameter | None, ctx: asyncclick.Context | None
    ) -> float:
        try:
            number = math.nan if _OTHER_NUMBER.search(str(value)) else self._parse(value)
        except ValueError:
            number = math.nan
        if not self._allowed(number):
            flag = param.opts[0] if param else "number"
            raise asyncclick.UsageError(
                f"{flag} {value}: must be {self._expected}{_UNITS.get(flag, '')}", ctx
            )
        return number


POSITIVE = _Number(int, lambda number: 1 <= number < 2**63, "a positive integer")
ABOVE_ZERO = _Number(float, lambda number: 0 < number < math.inf, "a positive number")

GLOBAL_FLAGS = (
    asyncclick.Option(
        ["--server"],
        metavar="URL",
        help="Server URL. [env: PYEXEC_SERVER, default: http://localhost:8080]",
    ),
    asyncclick.Option(["--token"], metavar="TOKEN", help="Send TOKEN as the API token. [env: PYEXEC_TOKEN]"),
    asyncclick.Option(
        ["--timeout"],
        type=ABOVE_ZERO,
        metavar="N",
        help="Kill the program after N seconds.",
    ),
    asyncclick.Option(["--memory"], type=POSITIVE, metavar="N", help="Memory limit in MiB."),
    asyncclick.Option(["--disk"], type=POSITIVE, metavar="N", help="Disk limit in MiB."),
    asyncclick.Option(
        ["--cpu"], type=POSITIVE, metavar="N", help="CPU weight relative to other runs (default 1024)."
    ),
    asyncclick.Option(["--cpus"], type=ABOVE_ZERO, metavar="N", help="CPU limit in cores, for example 0.5."),
    asyncclick.Option(
        ["--cpu-seconds"],
        type=ABOVE_ZERO,
        metavar="N",
        help="Kill the program after N seconds of processor time.",
    ),
    asyncclick.Option(["--network"], is_flag=True, default=None, help="Allow network access."),
    asyncclick.Option(["--image"], metavar="NAME", help="Run in the Docker image NAME."),
    asyncclick.Option(
        ["--async", "detached"],
        is_flag=True,
        default=None,
        help="Submit, print the execution ID, and do not wait.",
    ),
    asyncclick.Option(
        ["-q", "--quiet"], is_flag=True, default=None, help="Print only program output and errors."
    ),
    asyncclick.Option(["-v", "--verbose"], is_flag=True, default=None, help="Print each step."),
)

_ALWAYS_LISTED = ("server", "token", "quiet", "verbose")
_COMMANDS_WITH_LIMITS = "run, submit, eval, session new and repl"
_COMMANDS_WITH_ASYNC = "run and submit"


def complete_path(
    _ctx: asyncclick.Context, _param: asyncclick.Parameter | None, incomplete: str
) -> list[CompletionItem[Any]]:
    """Let the shell complete a file name."""
    from asyncclick.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


@frozen(kw_only=True)
class Flags:
    """The values of the global flags. If a flag is given twice, the last value counts."""

    server: str
    token: str | None
    timeout: float | None
    memory: int | None
    disk: int | None
    cpu: int | None
    cpus: float | None
    cpu_seconds: float | None
    network: bool | None
    image: str | None
    detached: bool | None
    quiet: bool | None
    verbose: bool | None

    def client(self) -> AsyncClient:
        """Create a client for the server. Raise UsageError if the server URL is invalid."""
        from pyexec_client import AsyncClient

        try:
            return AsyncClient(self.server, self.token)
        except ValueError as error:
            raise asyncclick.UsageError(str(error)) from error

    def limits(self) -> Limits:
        """Convert the flags to the limits of a request."""
        return {
            "timeout": _shortest(self.timeout),
            "memory_mb": self.memory,
            "disk_mb": self.disk,
            "cpu_shares": self.cpu,
            "cpus": _shortest(self.cpus),
            "cpu_seconds": _shortest(self.cpu_seconds),
            "network": self.network,
        }


def _shortest(number: float | None) -> float | None:
    """Convert a whole number to an int, so that its JSON has no decimal point."""
    return int(number) if number is not None and number.is_integer() else number


def with_flags(
    *, runs: bool, detaches: bool = False
) -> Callable[[Callable[..., Awaitable[int]]], Callable[..., Awaitable[int]]]:
    """Add the global flags to a command, and pass them as one `Flags` in its first argument.

    A command that `runs` nothing rejects the flags of a run with an error that names the commands that take them. The
    help lists --async only if the command `detaches`.
    """

    def decorate(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
        @functools.wraps(function)
        async def command(**given: Any) -> int:
            flags = {field.name: given.pop(field.name) for field in fields(Flags)}
            flags["server"] = flags["server"] or os.environ.get("PYEXEC_SERVER") or "http://localhost:8080"
            flags["token"] = flags["token"] or os.environ.get("PYEXEC_TOKEN") or None
            if not runs:
                _reject_run_flags(Flags(**flags))
            return await function(Flags(**flags), **given)

        params: list[asyncclick.Parameter] = getattr(function, "__click_params__", [])

        def is_listed(flag: asyncclick.Option) -> bool:
            return flag.name in _ALWAYS_LISTED or (detaches if flag.name == "detached" else runs)

        declared = [flag if is_listed(flag) else _hidden(flag) for flag in GLOBAL_FLAGS]
        # asyncclick's decorators append to this list in reverse order.
        command.__click_params__ = [*reversed(declared), *params]  # type: ignore[attr-defined]
        return command

    return decorate


def _reject_run_flags(flags: Flags) -> None:
    for flag in GLOBAL_FLAGS:
        if flag.name in _ALWAYS_LISTED or getattr(flags, str(flag.name)) is None:
            continue
        command = asyncclick.get_current_context().command_path.partition(" ")[2]
        takers = _COMMANDS_WITH_ASYNC if flag.name == "detached" else _COMMANDS_WITH_LIMITS
        raise asyncclick.UsageError(f"{flag.opts[0]}: {command} runs nothing; {takers} take this flag")


def _hidden(flag: asyncclick.Option) -> asyncclick.Option:
    """Return a copy that help does not list."""
    copied = copy.copy(flag)
    copied.hidden = True
    return copied


def listed_options(ctx: asyncclick.Context) -> list[str]:
    """Return the long names of the options that the help of a command lists."""
    return [
        name
        for param in ctx.command.get_params(ctx)
        if isinstance(param, asyncclick.Option) and not param.hidden
        for name in param.opts
        if name.startswith("--")
    ]
