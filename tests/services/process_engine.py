"""An engine and its containers, as one process reaches them."""

from collections.abc import Mapping

from pyexec.errors import ContainerGone, EngineError
from pyexec.ports import ContainerSpec, ContainerUsage, EngineIdentity, SetupSpec
from tests.services.containers import Box, MemoryEngine
from tests.services.images import ProcessImages, ProcessSetup
from tests.services.world import Crashed, Process


class ProcessContainer:
    """`ports.Container`: one process's connection to a container."""

    def __init__(self, box: Box, process: Process, engine: MemoryEngine) -> None:
        self._box = box
        self._process = process
        self._engine = engine
        self._at = 0

    @property
    def id(self) -> str:
        return self._box.id

    @property
    def diagnostics(self) -> str:
        return ""

    async def write(self, data: bytes) -> None:
        await self._process.passing()
        if self._box.ended:
            raise EngineError("the container is gone")
        self._box.hear(data)
        await self._process.passing()

    async def read(self) -> bytes | None:
        while True:
            await self._process.passing()
            if self._at < len(self._box.output):
                data = bytes(self._box.output[self._at :])
                self._at = len(self._box.output)
                return data
            if self._box.ended:
                return None
            await self._box.changed.wait()

    async def usage(self) -> ContainerUsage:
        await self._process.passing()
        self._engine.check()
        return ContainerUsage(cpu_seconds=1.0, memory_bytes=1)

    async def has_oom_event(self) -> bool:
        await self._process.passing()
        self._engine.check()
        return self._box.ran_out_of_memory

    async def kill(self) -> None:
        await self._process.passing()
        self._engine.check()
        self._box.end()

    async def remove(self) -> None:
        await self._process.passing()
        if self._engine.away:
            self._engine.unremoved.add(self._box.id)  # the adapter does it later
        self._engine.check()
        self._engine.remove(self._box.id)

    async def detach(self) -> None:
        await self._process.passing()
        self._box.hang_up()


class ProcessEngine:
    """`ports.Engine` as one process reaches it."""

    def __init__(self, engine: MemoryEngine, process: Process) -> None:
        self._engine = engine
        self._process = process
        self.images = ProcessImages(engine, process)

    async def identify(self) -> EngineIdentity:
        return self._engine.identify()

    async def check(self) -> None:
        self._engine.check()

    async def start(self, spec: ContainerSpec) -> ProcessContainer:
        await self._process.passing()
        box = await self._engine.start(spec)
        self._process.hanging.append(box)
        try:
            await self._process.passing()
        except Crashed:
            box.hang_up()
            raise
        except BaseException:
            self._engine.remove(box.id)
            raise
        return ProcessContainer(box, self._process, self._engine)

    async def follow(self, container_id: str) -> ProcessContainer:
        await self._process.passing()
        self._engine.check()
        if container_id not in self._engine.boxes:
            raise ContainerGone(f"there is no container {container_id}")
        return ProcessContainer(self._engine.boxes[container_id], self._process, self._engine)

    async def start_setup(self, spec: SetupSpec) -> ProcessSetup:
        await self._process.passing()
        self._engine.check()
        return ProcessSetup(self._engine, self._process, spec)

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        await self._process.passing()
        found = self._engine.list_containers(labels)
        await self._process.passing()
        return found

    async def remove_container(self, container_id: str) -> None:
        await self._process.passing()
        self._engine.check()
        self._engine.remove(container_id)

    async def close(self) -> None:
        """Do nothing, because there is no connection."""
