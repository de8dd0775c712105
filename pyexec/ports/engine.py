"""The container engine: containers, setup containers, images and networks."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from attrs import frozen


@frozen(kw_only=True)
class ContainerSpec:
    """A container to start. The engine enforces every limit; sizes are in bytes."""

    image: str
    command: Sequence[str]
    labels: Mapping[str, str]
    memory_bytes: int
    disk_bytes: int
    """Size of /work, and of /tmp. The supervisor enforces the limit on both together."""
    shm_bytes: int
    pids_max: int
    cpu_shares: int
    cpus: float | None
    log_bytes: int
    """How much of the standard output the engine keeps for replicas that follow the container later."""
    network: str | None
    """The network of the engine to join; None for no network at all."""
    attachable: bool = False
    """True if its input stays open when the connection ends, so that `Engine.attach` works. The engine keeps no
    output."""
    image_id: str = ""
    """The engine's id of the image, if it is known: a name can get another image later."""


@frozen(kw_only=True)
class EngineIdentity:
    """The engine's id and version, its machine, and the limits that it reports as unsupported."""

    id: str
    version: str
    architecture: str
    cpus: int
    memory_mb: int
    unsupported: Sequence[str]


@frozen(kw_only=True)
class Image:
    """An image that the engine has. `digest` is its digest in a registry, or its id if no registry has it.

    `used_at` is when it was last tagged: `Images.tag` is called at every use. `python` is the version of Python that
    the image says it has, as all official Python images do; None if it says nothing."""

    id: str
    digest: str
    names: Sequence[str]
    size_bytes: int
    architecture: str
    created_at: datetime
    used_at: datetime
    python: str | None = None


class Images(Protocol):
    """The images of the engine. The methods raise `EngineError` if the engine refuses, and `Unavailable` if it
    does not answer."""

    async def find(self, name: str) -> Image | None:
        """Return the image with this name or id; None if there is none.

        Raises `ImageUnavailable` if `name` is not a valid image name."""

    def pull(self, name: str) -> AsyncIterator[str]:
        """Pull an image, and yield its progress as lines of text.

        Raises `ImageUnavailable` with the reason if it cannot be pulled."""

    async def tag(self, image_name: str, repository: str, tag: str) -> None:
        """Give the image with this name or id the name `repository:tag`, which it may have already."""

    async def list(self, repository: str) -> Sequence[Image]:
        """Return all images with a name in this repository."""

    async def remove(self, image: Image) -> bool:
        """Remove an image with all its names. If it is in use, keep it and its names, and return False."""


@frozen(kw_only=True)
class SetupSpec:
    """A setup container to start. Sizes are in bytes; `network` is the network of the engine to join.

    `files` are copied into the container before it starts: contents, or paths on this machine, by absolute path
    in the container."""

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
    """A running setup container. The methods raise `EngineError` if it has ended, and `Unavailable` if the engine
    does not answer."""

    async def read_line(self) -> bytes:
        """Return the next line that the main process prints, or the rest of its output once it has ended."""

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], on_output: Callable[[bytes], None]
    ) -> int:
        """Run a command in it as root, and return its exit code. `on_output` gets the output as it is printed."""

    async def written_bytes(self) -> int:
        """Return how much the container has written so far in addition to its image."""

    async def has_oom_event(self) -> bool:
        """Return True if the kernel has killed one of its processes for lack of memory."""

    async def finish(self) -> None:
        """Tell the main process to clean up and exit, and wait until it has. Read its lines at the same time."""

    async def commit(self, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        """Make an image of the container under this name, in one atomic step.

        The image keeps the configuration of the image that the container was started from. Raises `CommitRefused` if
        the content of the container cannot be stored."""

    async def remove(self) -> None:
        """Remove the container, if it exists."""


@frozen(kw_only=True)
class ContainerUsage:
    """The processor time of all processes of a container since its start, and their current anonymous memory."""

    cpu_seconds: float
    memory_bytes: int


class Container(Protocol):
    """A started container, and the connection to its standard streams."""

    @property
    def id(self) -> str:
        """The engine's id of the container."""

    async def write(self, data: bytes) -> None:
        """Write to its standard input; wait while its buffer is full. Raises `EngineError` if it is gone."""

    async def read(self) -> bytes | None:
        """Return the next bytes of its standard output; None once the container has ended.

        Raises `EngineError` if only the connection has ended."""

    @property
    def diagnostics(self) -> str:
        """The beginning of its standard error, up to a few KiB."""

    async def usage(self) -> ContainerUsage:
        """Return the counters of the running container."""

    async def has_oom_event(self) -> bool:
        """Return True if the kernel has killed a process in it for lack of memory. Works shortly after its end, too."""

    async def kill(self) -> None:
        """Kill all its processes with SIGKILL, if it has not ended."""

    async def remove(self) -> None:
        """Kill and remove the container, if it exists."""

    async def detach(self) -> None:
        """Close the connection. The processes in the container continue."""


class Engine(Protocol):
    """A container engine. The methods raise `EngineError` if the engine refuses, and `Unavailable` if it does not
    answer."""

    async def identify(self) -> EngineIdentity:
        """Ask the engine for its identity and abilities."""

    async def check(self) -> None:
        """Return if the engine answers."""

    async def start(self, spec: ContainerSpec) -> Container:
        """Create, attach and start a container. If this fails, nothing is left behind.

        Raises `ImageUnavailable` if the image does not exist, or cannot run `command`."""

    async def follow(self, container_id: str) -> Container:
        """Connect to a container that was started earlier. Its output is read from the first byte; it takes no input.

        Raises `ContainerGone` if it no longer exists."""

    async def attach(self, container_id: str) -> Container:
        """Connect to the standard streams of a running container that is `attachable`. What it has sent before is lost.

        Raises `ContainerGone` if it does not exist or is not running."""

    async def ensure_network(self, name: str) -> None:
        """Create a network with this name, unless it exists. Its containers cannot reach each other."""

    @property
    def images(self) -> Images:
        """The images of the engine."""

    async def start_setup(self, spec: SetupSpec) -> SetupContainer:
        """Create, fill, attach and start a setup container. If this fails, nothing is left behind.

        Raises `ImageUnavailable` if the image cannot run `command`."""

    async def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """Return the containers with these labels, running or not: all labels of each, by container id.

        Containers that this program has not started are left out, even if they inherit the labels from their image."""

    async def remove_container(self, container_id: str) -> None:
        """Kill and remove a container, if it exists."""

    async def close(self) -> None:
        """Close all connections to the engine."""
