"""A setup container on a Docker daemon: root in it may write and reach the network, and little else."""

import io
import secrets
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream
from anyio import to_thread

from pyexec.adapters.docker.config import Isolation, setup_config
from pyexec.adapters.docker.errors import answered, remove_container, translated
from pyexec.errors import EngineError
from pyexec.ports import SetupSpec

_LINE_BYTES_MAX = 64 * 1024
_FINISH = b"."


class DockerSetupContainer:
    """`ports.SetupContainer`: ends with the connection that started it."""

    def __init__(self, docker: Docker, container: DockerContainer, spec: SetupSpec) -> None:
        self._docker = docker
        self._container = container
        self._spec = spec
        self._stream: Stream = container.attach(stdin=True, stdout=True, stderr=True)
        self._unread = b""

    @classmethod
    async def start(cls, docker: Docker, spec: SetupSpec, isolation: Isolation) -> Self:
        """As `ports.Engine.start_setup`."""
        with await to_thread.run_sync(_archive, spec.files) as files:
            with anyio.CancelScope(shield=True):
                async with translated(image=spec.image):
                    container = await docker.containers.create(
                        setup_config(spec, isolation), name=f"pyexec-setup-{secrets.token_hex(8)}"
                    )
            setup = cls(docker, container, spec)
            try:
                async with translated(image=spec.image):
                    await container.put_archive("/", files)  # type: ignore[no-untyped-call]
                    async with answered(docker):
                        await setup._stream.__aenter__()
                    await container.start()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await setup.remove()
                raise
        return setup

    async def read_line(self) -> bytes:
        async with translated():
            while b"\n" not in self._unread and len(self._unread) < _LINE_BYTES_MAX:
                message = await self._stream.read_out()
                if message is None:
                    break
                self._unread += message.data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], say: Callable[[bytes], None]
    ) -> int:
        async with translated():
            execution = await self._container.exec(
                list(command), user="0:0", workdir="/", environment=dict(environment)
            )
            async with execution.start(detach=False) as output:
                while (message := await output.read_out()) is not None:
                    say(message.data)
            code = (await execution.inspect())["ExitCode"]
        if code is None:
            raise EngineError("a setup command ended without an exit code")
        return int(code)

    async def written_bytes(self) -> int:
        async with translated():
            # aiodocker's own `show` cannot ask for sizes.
            document = await self._docker._query_json(
                f"containers/{self._container.id}/json", params={"size": "1"}
            )
        return int(document.get("SizeRw") or 0)

    async def finish(self) -> None:
        async with translated():
            await self._stream.write_in(_FINISH)
            while await self._stream.read_out() is not None:
                pass
            await self._container.wait()

    async def commit(self, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        async with translated(image=self._spec.image):
            own = (await self._docker.images.inspect(self._spec.image)).get("Config") or {}
            # The engine adds the container's labels, which would make every container of the image one of ours.
            nobodys = dict.fromkeys(self._spec.labels, "")
            config = {**own, "Labels": {**(own.get("Labels") or {}), **nobodys, **labels}}
            await self._container.commit(repository=repository, tag=tag, config=config)

    async def remove(self) -> None:
        try:
            async with translated():
                await self._stream.close()
        finally:
            await remove_container(self._container)


def _archive(files: Mapping[str, bytes | Path]) -> IO[bytes]:
    """The files as a tar on disk: together they are larger than one would hold in memory for each setup."""
    archive = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                member = tarfile.TarInfo(name.lstrip("/"))
                member.size, member.mode = _size(file), 0o755
                tar.addfile(member, file)
    archive.seek(0)
    return archive


def _size(file: Any) -> int:
    size: int = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size
