"""The images of an engine in memory, as one process uses them, and the setups that build new ones."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime

import anyio

from pyexec.errors import EngineError
from pyexec.ports import Image, SetupSpec
from tests.services.containers import MemoryEngine
from tests.services.world import Process


def image(name: str) -> Image:
    return Image(
        id=f"sha256:{name}",
        digest=f"sha256:{name}",
        names=(name,),
        size_bytes=1,
        architecture="amd64",
        created_at=datetime.now(UTC),
        used_at=datetime.now(UTC),
    )


REPORT_SECONDS = 20.0
COLD = "cold:"
"""Images with this prefix must be pulled first."""


class ProcessImages:
    """`ports.Images`: the images that were pulled or built exist, and so do all others without a special prefix."""

    def __init__(self, engine: MemoryEngine, process: Process) -> None:
        self._engine = engine
        self._process = process

    async def find(self, name: str) -> Image | None:
        await self._process.passing()
        self._engine.check()
        name = name.removeprefix("sha256:")
        if name.startswith("pyexec-env:"):
            return self._engine.environments.get(name)
        if name.startswith(COLD) and name not in self._engine.pulled:
            return None
        return image(name)

    async def pull(self, name: str) -> AsyncIterator[str]:
        await self._process.passing()
        self._engine.check()
        yield "pulling"
        await self._engine.set_up(self._process.name)
        await self._process.passing()
        self._engine.check()
        self._engine.pulled.add(name)

    async def tag(self, image_name: str, repository: str, tag: str) -> None:
        """Rename a build. In this engine, images have one name."""
        await self._process.passing()
        self._engine.check()
        name = f"{repository}:{tag}"
        if image_name != name and self._engine.environments.pop(image_name, None):
            self._engine.environments[name] = image(name)
            self._engine.builds.append(name)
            await self._process.passing()

    async def list(self, repository: str) -> Sequence[Image]:
        await self._process.passing()
        self._engine.check()
        return tuple(self._engine.environments.values()) if repository == "pyexec-env" else ()

    async def remove(self, image: Image) -> bool:
        raise EngineError(f"there is room for {image.id}")


class ProcessSetup:
    """`ports.SetupContainer`: a command takes `setup_seconds`. It ends with its process."""

    def __init__(self, engine: MemoryEngine, process: Process, spec: SetupSpec) -> None:
        self._engine = engine
        self._process = process
        self._spec = spec
        self._lines = [b'{"python": [3, 12, 0], "executable": "/usr/bin/python3"}']
        self._ended = anyio.Event()

    async def read_line(self) -> bytes:
        await self._process.passing()
        if self._lines:
            return self._lines.pop()
        with anyio.move_on_after(REPORT_SECONDS):
            await self._ended.wait()
        return b"" if self._ended.is_set() else b'{"disk_bytes": 0}'

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], on_output: Callable[[bytes], None]
    ) -> int:
        await self._process.passing()
        self._engine.check()
        await self._engine.set_up(self._process.name)
        on_output(b"installed\n")
        await self._process.passing()
        self._engine.check()
        return 0

    async def written_bytes(self) -> int:
        return 0

    async def has_oom_event(self) -> bool:
        await self._process.passing()
        self._engine.check()
        return False

    async def finish(self) -> None:
        await self._process.passing()
        self._engine.check()
        self._ended.set()

    async def commit(self, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        await self._process.passing()
        self._engine.check()
        name = f"{repository}:{tag}"
        self._engine.environments[name] = image(name)
        await self._process.passing()

    async def remove(self) -> None:
        await self._process.passing()
