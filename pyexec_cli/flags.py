"""Flags that every command takes, before its name or after it."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncclick
from attrs import fields, frozen

if TYPE_CHECKING:
    from asyncclick.shell_completion import CompletionItem

    from pyexec_client import AsyncClient
    from pyexec_client.options import RunOptions

_POSITIVE = asyncclick.IntRange(min=1)

GLOBAL_FLAGS = (
    asyncclick.Option(
        ["--server"],
        metavar="URL",
        help="The server's address. [env: PYEXEC_SERVER, default: http://localhost:8080]",
    ),
    asyncclick.Option(["--token"], metavar="TOKEN", help="The access token. [env: PYEXEC_TOKEN]"),
    asyncclick.Option(
        ["--timeout"],
        type=asyncclick.FloatRange(min=0, min_open=True),
        metavar="N",
        help="End the run after N seconds.",
    ),
    asyncclick.Option(["--memory"], type=_POSITIVE, metavar="N", help="Memory limit in MB."),
    asyncclick.Option(["--disk"], type=_POSITIVE, metavar="N", help="Disk limit in MB."),
    asyncclick.Option(["--cpu"], type=_POSITIVE, metavar="N", help="CPU shares (1024 is one's fair part)."),
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


def complete_path(
    _ctx: asyncclick.Context, _param: asyncclick.Parameter | None, incomplete: str
) -> list[CompletionItem[Any]]:
    """Leaves it to the shell, which knows what files there are."""
    from asyncclick.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


@frozen(kw_only=True)
class Flags:
    """What the global flags say, those after the command's name before those in front of it."""

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


def with_flags(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    """Give a command the global flags, as one `Flags` in its first argument."""

    @functools.wraps(function)
    async def command(**given: Any) -> int:
        before = asyncclick.get_current_context().obj or {}
        merged: dict[str, Any] = {}
        for field in fields(Flags):
            own = given.pop(field.name)
            merged[field.name] = before.get(field.name) if own is None else own
        # The environment comes last of all; as the options' own source it would go before the group's flags.
        merged["server"] = merged["server"] or os.environ.get("PYEXEC_SERVER") or "http://localhost:8080"
        merged["token"] = merged["token"] or os.environ.get("PYEXEC_TOKEN") or None
        return await function(Flags(**merged), **given)

    params: list[asyncclick.Parameter] = getattr(function, "__click_params__", [])
    # asyncclick collects what decorators declared in this list, last first.
    command.__click_params__ = [*reversed(GLOBAL_FLAGS), *params]  # type: ignore[attr-defined]
    return command
