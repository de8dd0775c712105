"""A sandbox in the pool, watched so that a dead one is noticed before it is handed out."""

import logging
from collections.abc import Callable

import anyio

from pyexec.errors import ExecutorError, SandboxBroken
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)


class IdleSandbox:
    """Somebody must `watch` it until it is claimed."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._scope = anyio.CancelScope()
        self._watched = anyio.Event()
        self._broken = False

    async def watch(self, forget: Callable[[], None]) -> None:
        """Returns when the sandbox is claimed; when it has broken, forgets and removes it."""
        try:
            with self._scope:
                try:
                    await self._sandbox.wait_until_broken()
                except SandboxBroken as error:
                    logger.warning("a waiting sandbox is of no use: %s", error)
                except Exception:  # a fault of ours in one sandbox is no other's
                    logger.exception("a waiting sandbox is of no use")
                self._broken = True
        finally:
            self._watched.set()
        if self._broken:
            forget()
            await discard(self._sandbox)

    async def claim(self) -> Sandbox | None:
        """The sandbox, watched no longer; None when it has broken."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):  # else a caller who hangs up now would leave it with nobody
            await self._watched.wait()
        return None if self._broken else self._sandbox


async def discard(sandbox: Sandbox) -> None:
    """Removes a sandbox that nobody wants."""
    try:
        await sandbox.remove()
    except ExecutorError as error:
        logger.warning("cannot remove a sandbox that is not needed: %s", error)
