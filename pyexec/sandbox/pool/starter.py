"""Start sandboxes for the pool, and measure how long a start takes."""

import logging
from collections.abc import Awaitable, Callable

import anyio
from attrs import define, evolve, field

from pyexec.errors import EngineError, ImageUnavailable, Unavailable
from pyexec.metrics import SANDBOX_START_SECONDS, Meter, timed
from pyexec.ports import ContainerSpec, Engine, Image
from pyexec.sandbox.pool.kind_queue import SandboxKind
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

INITIAL_SECONDS = 0.2
"""The assumed duration of a start until one has been measured."""
START_ERRORS = (EngineError, ImageUnavailable, Unavailable)


@define
class Starter:
    """Starts sandboxes. `seconds` is a moving average of the duration of a start.

    `image_of` returns an image by its name; `spec_of` returns the container for a kind of sandbox."""

    _engine: Engine
    _image_of: Callable[[str], Awaitable[Image]]
    _spec_of: Callable[[SandboxKind], ContainerSpec]
    _meter: Meter
    seconds: float = INITIAL_SECONDS
    _least_mb: dict[str, int] = field(factory=dict, init=False)
    """By image id, the least memory with which a sandbox has started."""

    async def start(self, kind: SandboxKind) -> Sandbox:
        """Start a sandbox of this kind. Raises only `START_ERRORS`: an internal error becomes an `EngineError`."""
        try:
            image = await self._image_of(kind.image)
            begun = anyio.current_time()
            with timed(self._meter, SANDBOX_START_SECONDS):
                sandbox = await self._start(kind, image)
        except START_ERRORS:
            raise
        except Exception as error:
            logger.exception("starting a sandbox of %s failed", kind.image)
            raise EngineError("the server failed to start a sandbox; see the server log") from error
        self.seconds += (anyio.current_time() - begun - self.seconds) / 4
        return sandbox

    async def _start(self, kind: SandboxKind, image: Image) -> Sandbox:
        """Start a sandbox. Raise `EngineError` instead of `ImageUnavailable` if a sandbox with at most as much memory
        has started in this image before: then the image is not the cause, and the run is retried."""
        least_mb = self._least_mb.get(image.id)
        try:
            sandbox = await Sandbox.start(
                self._engine, evolve(self._spec_of(kind), image_id=image.id), image.digest
            )
        except ImageUnavailable as error:
            if least_mb is None or kind.memory_mb < least_mb:
                raise
            raise EngineError(
                f"a sandbox did not start, although others of its image did: {error}"
            ) from error
        self._least_mb[image.id] = kind.memory_mb if least_mb is None else min(least_mb, kind.memory_mb)
        return sandbox
