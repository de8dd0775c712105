"""The container engine."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from attrs import frozen


@frozen(kw_only=True)
class ContainerSpec:
    """A container to start. Every limit is what the engine enforces, in bytes."""

    image: str
    command: Sequence[str]
    labels: Mapping[str, str]
    memory_bytes: int
    work_bytes: int
    tmp_bytes: int
    shm_bytes: int
    pids_max: int
    cpu_shares: int
    cpus: float | None
    log_bytes: int
    """How much of its standard output the engine keeps, for whoever follows it later."""
    network: str | None
    """The engine's network to join; None for no network at all."""


@frozen(kw_only=True)
class EngineIdentity:
    """Which engine answers, what it runs on, and which of the limits we rely on it says it cannot enforce."""

    id: str
    version: str
    architecture: str
    cpus: int
    memory_mb: int
    unenforced: Sequence[str]


@frozen(kw_only=True)
class Image:
    """An image that the engine has. `digest` is what a registry knows it by, or its id where none does.

    `used_at` is when it was last given a name, which `Images.name` does again at every use."""

    id: str
    digest: str
    names: Sequence[str]
    size_bytes: int
    architecture: str
    created_at: datetime
    used_at: datetime
    labels: Mapping[str, str]


class Images(Protocol):
    """The engine's images. Its methods raise `EngineError` when it refuses, `Unavailable` when it is away."""

    async def find(self, name: str) -> Image | None:
        """The image of this name or id; None when there is none. Raises `ImageUnavailable` for what is no name."""

    def pull(self, name: str) -> AsyncIterator[str]:
        """Fetches an image, and yields what there is to tell meanwhile, a line each.

        Raises `ImageUnavailable` saying why it cannot be had."""

    async def name(self, image_id: str, repository: str, tag: str) -> None:
        """Gives an image one more name, or the same again."""

    async def list(self, *, label: str | None = None, repository: str | None = None) -> Sequence[Image]:
        """All images that bear the label, or have a name in the repository."""

    async def remove(self, image: Image) -> bool:
        """Removes an image with all its names; False when something still needs it."""


@frozen(kw_only=True)
class SetupSpec:
    """A container in which an environment is made. Limits in bytes; `network` names the engine's network to join.

    `files` are there before it starts: contents, or where they lie, by their absolute paths."""

    image: str
    command: Sequence[str]
    labels: Mapping[str, str]
    files: Mapping[str, bytes | Path]
    memory_bytes: int
    cpu_shares: int
    pids_max: int
    file_bytes_max: int
    network: str


class SetupContainer(Protocol):
    """A started setup container. Its methods raise `EngineError` when it has ended, `Unavailable` without engine."""

    async def read_line(self) -> bytes:
        """The next line that its first process prints, or what there is at its end."""

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], say: Callable[[bytes], None]
    ) -> int:
        """Runs a command in it as root; what it prints is said as it comes. Returns its exit code."""

    async def written_bytes(self) -> int:
        """How much it has written over its image by now."""

    async def finish(self) -> None:
        """Tells its first process to clean up and end, and waits until it has."""

    async def commit(self, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        """Makes an image of it, with its own image's configuration, under this name: all at once or not at all."""

    async def remove(self) -> None:
        """Leaves nothing of it; fine when it is gone already."""


class Container(Protocol):
    """A started container, attached: what is written arrives at its standard input."""

    @property
    def id(self) -> str:
        """The engine's id of it."""

    async def write(self, data: bytes) -> None:
        """Sends bytes, waiting while the container is slow to take them; `EngineError` when it is gone."""

    async def read(self) -> bytes | None:
        """The next bytes of its standard output; None once the container has ended.

        Raises `EngineError` when only the connection to it has."""

    @property
    def diagnostics(self) -> str:
        """What it has written to its standard error so far, at most a few KiB."""

    async def kill(self) -> None:
        """Ends every process in it, with SIGKILL; fine when it has ended already."""

    async def remove(self) -> None:
        """Kills it and removes all that is left of it; fine when it is gone already."""

    async def detach(self) -> None:
        """Ends the connection to it; what runs in it goes on."""


class Engine(Protocol):
    """A container engine. Its methods raise `EngineError` when it refuses, `Unavailable` when it is away."""

    async def identify(self) -> EngineIdentity:
        """Asks the engine who it is and what it can do."""

    async def check(self) -> None:
        """Returns when the engine answers."""

    async def start(self, spec: ContainerSpec) -> Container:
        """Creates, attaches and starts a container; leaves nothing behind when it raises.

        Raises `ImageUnavailable` when the image is missing or has not what `command` names."""

    async def follow(self, container_id: str) -> Container:
        """A running container that was started before, read from its first byte on; nothing can be written.

        Raises `ContainerGone` when it is not there any more."""

    async def ensure_network(self, name: str) -> None:
        """Makes a network of this name, in which containers do not reach each other, unless there is one."""

    @property
    def images(self) -> Images:
        """The images it has."""

    async def start_setup(self, spec: SetupSpec) -> SetupContainer:
        """Creates, fills, attaches and starts a setup container; leaves nothing behind when it raises.

        Raises `ImageUnavailable` when the image has not what `command` names."""

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """All containers, running or not, that bear these labels: their ids, each with all its labels."""

    async def remove_container(self, container_id: str) -> None:
        """Kills and removes a container; fine when it is gone already."""

    async def close(self) -> None:
        """Lets go of the connection."""
