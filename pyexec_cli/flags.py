"""Flags that every command takes, before its name or after it."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncclick
from attrs import fields, frozen

if TYPE_CHECKING:
    from asyncclick.shell_completion import CompletionItem

    from pyexec_client import AsyncClient
    from pyexec_client.options import RunOptions


class _Number(asyncclick.ParamType[float]):
    """The value of a flag that `read` understands and `allowed` lets pass; `wanted` names them for a person."""

    name = "number"

    def __init__(self, read: Callable[[str], float], allowed: Callable[[float], bool], wanted: str) -> None:
        self._read, self._allowed, self._wanted = read, allowed, wanted

    def convert(
        self, value: Any, param: asyncclick.Parameter | None, ctx: asyncclick.Context | None
    ) -> float:
        try:
            number = self._read(value)
        except ValueError:
            number = math.nan
        if not self._allowed(number):
            flag = param.opts[0] if param else "number"
            raise asyncclick.UsageError(f"{flag} {value}: it must be {self._wanted}", ctx)
        return number


POSITIVE = _Number(int, lambda number: number >= 1, "a whole number of at least 1")
_ABOVE_ZERO = _Number(float, lambda number: number > 0, "a number above 0")

GLOBAL_FLAGS = (
    asyncclick.Option(
        ["--server"],
        metavar="URL",
        help="The server's address. [env: PYEXEC_SERVER, default: http://localhost:8080]",
    ),
    asyncclick.Option(["--token"], metavar="TOKEN", help="The access token. [env: PYEXEC_TOKEN]"),
    asyncclick.Option(
        ["--timeout"],
        type=_ABOVE_ZERO,
        metavar="N",
        help="End the run after N seconds.",
    ),
    asyncclick.Option(["--memory"], type=POSITIVE, metavar="N", help="Memory limit in MB."),
    asyncclick.Option(["--disk"], type=POSITIVE, metavar="N", help="Disk limit in MB."),
    asyncclick.Option(["--cpu"], type=POSITIVE, metavar="N", help="CPU shares (1024 is one's fair part)."),
    asyncclick.Option(["--network"], is_flag=True, default=None, help="Let the program reach the network."),
    asyncclick.Option(["--image"], metavar="NAME", help="The Docker image to run in."),
    asyncclick.Option(
        ["--async", "detached"], is_flag=True, default=None, help="Submit, print the id, and do not wait."
    ),
    asyncclick.Option(
        ["-q", "--quiet"], is_flag=True, default=None, help="No notes, only output and errors."
    ),
    asyncclick.Option(["-v", "--verbose"], is_flag=True, default=None, help="Tell each step."),
)

_OF_EVERY_COMMAND = ("server", "token", "quiet", "verbose")


def complete_path(
    _ctx: asyncclick.Context, _param: asyncclick.Parameter | None, incomplete: str
) -> list[CompletionItem[Any]]:
    """Leaves it to the shell, which knows what files there are."""
    from asyncclick.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


@frozen(kw_only=True)
class Flags:
    """What the global flags say; of one that is given twice, the last counts."""

    server: str
    token: str | None
    timeout: float | None
    memory: int | None
    disk: int | None
    cpu: int | None
    network: bool | None
    image: str | None
    detached: bool | None
    quiet: bool | None
    verbose: bool | None

    def client(self) -> AsyncClient:
        """A client of the server; raises UsageError if its address is none."""
        from pyexec_client import AsyncClient

        try:
            return AsyncClient(self.server, self.token)
        except ValueError as problem:
            raise asyncclick.UsageError(str(problem)) from problem

    def options(self) -> RunOptions:
        """The part of a request's options that these flags hold."""
        return {
            "timeout": int(self.timeout) if self.timeout and self.timeout.is_integer() else self.timeout,
            "memory_mb": self.memory,
            "disk_mb": self.disk,
            "cpu_shares": self.cpu,
            "network": self.network,
            "image": self.image,
        }


def with_flags(*, runs: bool) -> Callable[[Callable[..., Awaitable[int]]], Callable[..., Awaitable[int]]]:
    """Give a command the global flags, as one `Flags` in its first argument. One that `runs` nothing takes those
    that say how to run as well, and does not list them."""

    def decorate(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
        @functools.wraps(function)
        async def command(**given: Any) -> int:
            flags = {field.name: given.pop(field.name) for field in fields(Flags)}
            flags["server"] = flags["server"] or os.environ.get("PYEXEC_SERVER") or "http://localhost:8080"
            flags["token"] = flags["token"] or os.environ.get("PYEXEC_TOKEN") or None
            return await function(Flags(**flags), **given)

        params: list[asyncclick.Parameter] = getattr(function, "__click_params__", [])
        declared = [flag if runs else _unlisted(flag) for flag in GLOBAL_FLAGS]
        # asyncclick collects what decorators declared in this list, last first.
        command.__click_params__ = [*reversed(declared), *params]  # type: ignore[attr-defined]
        return command

    return decorate


def _unlisted(flag: asyncclick.Option) -> asyncclick.Option:
    """The same, not listed if it says how to run."""
    same = copy.copy(flag)
    same.hidden = same.name not in _OF_EVERY_COMMAND
    return same
