"""A pool that starts a sandbox for each session."""

from itertools import count

from tests.services.containers import MemoryEngine
from tests.services.session_boxes import SessionBox
from tests.services.world import Process

_numbers = count(1)


class SessionPool:
    """A pool with a sandbox for each session."""

    def __init__(self, engine: MemoryEngine, process: Process) -> None:
        self._engine = engine
        self._process = process

    async def take(self, _kind: object, _tenant: str) -> SessionBox:
        await self._process.passing()
        self._engine.check()
        labels = {
            "pyexec.deployment": "deployment",
            "pyexec.engine": self._engine.name,
            "pyexec.replica": self._process.name,
        }
        box = SessionBox(f"session-{next(_numbers)}", labels, self._engine)
        self._engine.boxes[box.id] = box
        self._engine.call_later(1800, box._end_without_lease)
        return box

    def forget(self, _sandbox: object) -> None:
        """Do nothing: the sandbox is not reused."""
