"""What the services need from the world outside, as interfaces. Adapters implement them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from attrs import frozen

from pyexec.domain.events import Event
from pyexec.domain.execution import Execution, Status
from pyexec.domain.journal import Stream
from pyexec.errors import CorruptLog


@frozen(kw_only=True)
class IdempotencyKey:
    """A caller's key, hashed, and the fingerprint of the request that it stands for."""

    key_hash: str
    fingerprint: str


@frozen(kw_only=True)
class OpenExecutions:
    """All executions that have not ended, each with the length of its log, at a version of the log's index.

    The version is new at every append."""

    version: int
    lengths: Mapping[str, int]


@frozen(kw_only=True)
class Inbox:
    """The executions that one replica was told of and has not settled, at a version of the inbox."""

    version: int
    ids: frozenset[str]


@frozen(kw_only=True)
class Page:
    """Ids, newest first, and the cursor of the next page; None after the last."""

    ids: Sequence[str]
    next_cursor: str | None


class EventLog(Protocol):
    """The only truth: for each execution a gapless, append-only sequence of events, counted from 1.

    Every method raises `Unavailable` when the store does not answer, `CorruptLog` for what it cannot read."""

    async def append(
        self,
        execution_id: str,
        after: int,
        events: Sequence[Event],
        *,
        key: IdempotencyKey | None = None,
        tell: str | None = None,
        gone: str | None = None,
    ) -> None:
        """Writes `events` as numbers `after + 1` and on, all or none, durably once this returns.

        `key`, allowed with `after` 0 only, is bound to the execution in the same step. `tell` puts the execution
        into that replica's inbox in the same step; `gone` names a replica that must not be a member in that
        step. Whether the events are a legal word is the caller's business. A cancelled append has happened
        wholly or not at all; so has one that raises `Unavailable`, and it may yet happen a little later.
        Raises `Conflict` when the log is not `after` events long, has ended, or is retired, or when `gone` is a
        member; `KeyTaken` when the key is bound; `SessionLost` when this replica is no member at present, and
        then nothing was written, nor will be; `TooLarge` when the store cannot take that much in one step."""

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        """The events from number `after + 1` on; empty when there are none."""

    async def wait(self, execution_id: str, after: int) -> None:
        """Returns once the log is longer than `after` events or is retired; at once if it is so already."""

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        """The executions that have not ended: now, or as soon as the index's version is not `since`."""

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        """What a replica was told of: now, or as soon as the inbox's version is not `since`.

        It may return without news."""

    async def settle(self, replica: str, execution_id: str) -> None:
        """Takes an execution out of a replica's inbox; fine when it is not there."""

    async def page(self, *, status: Status | None, limit: int, cursor: str | None) -> Page:
        """At most `limit` executions, newest first, from `cursor` on, of one status or of all.

        Raises `InvalidRequest` for a `cursor` that no page gave."""

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[str]:
        """At most `limit` executions that ended before `moment`, oldest end first. One that came to be long after its
        id was made, or by a clock that is late, may be found some minutes later."""

    async def key_owner(self, key_hash: str) -> tuple[str, str] | None:
        """The execution that a key is bound to, and its fingerprint; None when the key is free."""

    async def retire(self, execution_id: str) -> None:
        """Removes an ended execution and its key; fine when it is gone already.

        A retired log never comes back. Raises `Conflict` when the execution has not ended."""

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        """Makes everything but the events anew from the events, while the log is in use. What cannot be read keeps the
        index that it has, and is what this returns."""

    async def check(self) -> None:
        """Returns when the store answers."""


class BlobStore(Protocol):
    """Bytes too large for the log, under names the caller makes: `<execution id>/<name>`.

    A name of any other form is a `ValueError`."""

    @property
    def bytes_max(self) -> int | None:
        """The largest blob it takes; None when there is no such bound."""

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Stores everything `chunks` yields, durably, and whole or not at all.

        Raises `TooLarge` when the store takes no blob of that size."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a blob in order; raises `Unavailable` when it is not there."""

    async def delete(self, name: str) -> None:
        """Removes a blob; nothing happens when it is not there."""

    async def sweep(self, alive: Set[str], exists: Callable[[str], Awaitable[bool]]) -> None:
        """Removes what was put for executions that never came to be: by replicas that are not `alive`, or, where it
        is not known by whom, more than a day ago. `exists` tells whether there is an execution of this id."""


@frozen(kw_only=True)
class Member:
    """A living replica: the engine it runs on, where others reach its HTTP API, and how many programs it runs
    at once."""

    replica: str
    engine: str
    address: str | None
    slots: int
    version: str


@frozen(kw_only=True)
class Members:
    """All living replicas by their names, at a version of the membership."""

    version: int
    members: Mapping[str, Member]


class Membership(Protocol):
    """Who is alive, and who of them leads. Its methods raise `Unavailable` when the store does not answer."""

    async def join(self, member: Member) -> None:
        """Makes this replica a member, and keeps it one until `leave`.

        When it was taken for dead it becomes a member again by itself; until then it appends nothing."""

    async def members(self, since: int | None = None) -> Members:
        """The members: now, or as soon as the membership's version is not `since`. It may return without news."""

    def lead(self) -> AbstractAsyncContextManager[None]:
        """A scope in which this replica leads: entering waits for it, leaving it lets another lead.

        When leadership is lost what runs inside is cancelled, and the scope ends as if it had returned."""

    async def leave(self) -> None:
        """Ends the membership at once; fine when there is none."""


REPLICA_HEADER = "X-Pyexec-Replica"
"""Marks a request of one replica to another, with the asking one's name."""


@frozen(kw_only=True)
class Caller:
    """Who asks: with which token, and whether it is another replica, which is answered from here alone."""

    token: str | None = None
    is_replica: bool = False


class Peers(Protocol):
    """The other replicas, asked for what only they know: the output of what they run."""

    def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        """What an execution has printed from an offset on, in setup or since it runs: as it comes, until its log
        has news, or by now.

        Raises `Unavailable` when its owner cannot be reached, or breaks off."""


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

    async def let_go(self) -> None:
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
