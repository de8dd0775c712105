"""Flags of the commands that open a session."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import asyncclick
from attrs import frozen

from pyexec_client.options import SessionOptions

from . import inputs
from .flags import ABOVE_ZERO, Flags, complete_path
from .script_flags import ENV_FLAG, PRE_COMMAND_FLAG, check_requirements_source, environment

_FLAGS = (
    asyncclick.option(
        "--requirements",
        metavar="FILE",
        shell_complete=complete_path,
        help="Install the packages listed in FILE.",
    ),
    ENV_FLAG,
    PRE_COMMAND_FLAG,
    asyncclick.option(
        "--idle-timeout",
        type=ABOVE_ZERO,
        metavar="N",
        help="Close the session after N seconds without code.",
    ),
    asyncclick.option("--lifetime", type=ABOVE_ZERO, metavar="N", help="Close the session after N seconds."),
)


@frozen(kw_only=True)
class SessionFlags:
    """The values of the flags that open a session."""

    requirements: str | None
    env: tuple[str, ...]
    pre_commands: tuple[str, ...]
    idle_timeout: float | None
    lifetime: float | None


NO_SESSION_FLAGS = SessionFlags(requirements=None, env=(), pre_commands=(), idle_timeout=None, lifetime=None)


def session_flags(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    """Add the flags of sessions to a command, and pass them as one `SessionFlags` in the argument `settings`."""

    @functools.wraps(function)
    async def command(*positional: Any, **given: Any) -> int:
        own = {name: given.pop(name) for name in SessionFlags.__annotations__}
        return await function(*positional, settings=SessionFlags(**own), **given)

    for option in reversed(_FLAGS):
        command = option(command)
    return command


async def read_session_options(
    settings: SessionFlags, flags: Flags, *, stdin_is_code: bool
) -> SessionOptions:
    """Convert the flags to the options of a session. Raise UsageError for flags that are invalid."""
    if settings.requirements == "":
        raise asyncclick.UsageError("--requirements: must not be empty")
    if flags.detached:
        raise asyncclick.UsageError("--async: a session runs no script; use run or submit")
    name = settings.requirements
    check_requirements_source(name, stdin_is_code=stdin_is_code)
    return SessionOptions(
        requirements=await inputs.read_requirements(name, "--requirements") if name else None,
        env=environment(settings.env) or None,
        pre_commands=settings.pre_commands or None,
        idle_timeout=settings.idle_timeout,
        lifetime=settings.lifetime,
        image=flags.image,
        **flags.limits(),
    )
