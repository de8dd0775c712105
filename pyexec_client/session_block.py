"""The context managers of `client.session()`, which open a session and close it at the end of their block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NoReturn

from .session import AsyncSession
from .sync_session import Session

_HINT = (
    "client.session() opens a session only in a `with` statement: write `{}`, or `{}` and close it at the end"
)
_SYNC = _HINT.format("with client.session() as session:", "session = client.open_session()")
_ASYNC = _HINT.format("async with client.session() as session:", "session = await client.open_session()")


class SessionBlock:
    """The context manager of `Client.session`."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session

    def __enter__(self) -> Session:
        self._session = self._open_session()
        return self._session.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no attribute {name!r}: {_SYNC}")


class AsyncSessionBlock:
    """The asynchronous context manager of `AsyncClient.session`."""

    def __init__(self, open_session: Callable[[], Awaitable[AsyncSession]]) -> None:
        self._open_session = open_session

    async def __aenter__(self) -> AsyncSession:
        self._session = await self._open_session()
        return await self._session.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.__aexit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no attribute {name!r}: {_ASYNC}")

    def __await__(self) -> NoReturn:
        raise TypeError(_ASYNC)
