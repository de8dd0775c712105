"""Start sandboxes for the pool, and measure how long a start takes."""

import logging
from collections.abc import Awaitable, Callable

import anyio
from attrs import define, evolve

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
    """Starts sandboxes. `seconds` is a moving average of the time that it took.

    `image_of` returns an image by its name; `spec_of` returns the container for a kind of sandbox."""

    _engine: Engine
    _image_of: Callable[[str], Awaitable[Image]]
    _spec_of: Callable[[SandboxKind], ContainerSpec]
    _meter: Meter
    seconds: float = INITIAL_SECONDS

    async def start(self, kind: SandboxKind) -> Sandbox:
        """Start a sandbox of this kind. Raises one of `START_ERRORS`, even if the server itself has failed."""
        try:
            image = await self._image_of(kind.image)
            begun = anyio.current_time()
            with timed(self._meter, SANDBOX_START_SECONDS):
                spec = evolve(self._spec_of(kind), image_id=image.id)
                sandbox = await Sandbox.start(self._engine, spec, image.digest)
        except START_ERRORS:
            raise
        except Exception as error:
            logger.exception("starting a sandbox of %s failed", kind.image)
            raise EngineError("the server failed to start a sandbox; see the server log") from error
        self.seconds += (anyio.current_time() - begun - self.seconds) / 4
        return sandbox
