"""Open and close a session so that a signal leaves none open without naming it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from pyexec_client import AsyncClient, AsyncSession, PyexecError
from pyexec_client.options import SessionOptions
from pyexec_client.session import close_quietly

from .console import Console

if TYPE_CHECKING:
    from pyexec_client.source import Source

_CLOSE_SECONDS = 10.0


@define
class Opening:
    """A session that is being opened. If a signal arrives meanwhile, it is closed as soon as it is open."""

    console: Console
    session: AsyncSession | None = field(default=None, init=False)
    _interrupted: bool = field(default=False, init=False)

    async def open(
        self, client: AsyncClient, source: Source | None, options: SessionOptions
    ) -> AsyncSession | None:
        """Open the session. Return None if a signal has arrived: then the session is closed."""
        try:
            session = await client.open_session(source, **options)
        except anyio.get_cancelled_exc_class():
            # The server stops opening a session if the connection is closed, but it may just have opened it.
            self.console.error(
                "cancelled; a session may still be open: check with python-executor session list"
            )
            raise
        finally:
            self.console.status_line.close()
        if self._interrupted:
            await close_session(session)
            return None
        self.session = session
        return session

    async def on_interrupt(self) -> bool:
        """Return True if the session is not open yet: then `open` closes it."""
        if self.session is not None:
            return False
        self._interrupted = True
        self.console.error("closing the session as soon as it is open (press Ctrl-C again to exit at once)")
        return True


async def close_session(session: AsyncSession) -> None:
    """Close the session, even if the caller is cancelled. The error of a failure says how to close it later."""
    try:
        with anyio.CancelScope(shield=True), anyio.fail_after(_CLOSE_SECONDS):
            await close_quietly(session)
    except (PyexecError, TimeoutError) as error:
        reason = f"no answer within {_CLOSE_SECONDS:.0f} s" if isinstance(error, TimeoutError) else error
        raise PyexecError(
            f"the session is still open: {reason}; close it with: python-executor session close {session.id}"
        ) from error
