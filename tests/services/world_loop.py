"""A world in virtual time, for tests that are not coroutines: they run it step by step."""

import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from tests.services.replicas import Life
from tests.services.virtual_time import VirtualLoop
from tests.services.world import World


class WorldLoop:
    """A world and its event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._stop = anyio.Event()
        self.loop = VirtualLoop()
        self.do(self._open())

    async def _open(self) -> None:
        opened = self.loop.create_future()

        async def hold() -> None:
            async with anyio.create_task_group() as tasks:
                opened.set_result(World(Path(self._directory.name), tasks))
                await self._stop.wait()
                tasks.cancel_scope.cancel()

        self._holder = self.loop.create_task(hold(), name="world")
        self.world: World = await opened

    def do(self, work: Coroutine[Any, Any, Any], passes: int = 0) -> Any:
        """Run one step, and then `passes` passes of the event loop. Return the result of the step."""

        async def step() -> Any:
            result = await work
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()
            return result

        return self.loop.run_until_complete(step())

    def call(self, what: Callable[[], object], passes: int = 0) -> None:
        """Call a function inside the loop, and then run `passes` passes of it."""

        async def work() -> None:
            what()

        self.do(work(), passes)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, passes: int = 0) -> None:
        """Start a task in the world, and run `passes` passes of the loop."""
        self.call(lambda: self.world.tasks.start_soon(work, name=name), passes)

    def end_world(self, lives: Sequence[Life]) -> None:
        """Crash the replicas that still run, and end the world."""
        self._stop.set()
        for life in lives:
            if not life.ended.is_set():
                self.call(life.crash)
        self.loop.run_until_complete(self._holder)
        self.world.log.store.close()
        self.world.log._data_dir.release()
        self.loop.close()
        self._directory.cleanup()
