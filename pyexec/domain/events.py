"""The events of an execution. A written event never changes."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from attrs import frozen

from pyexec.domain.crash import TracebackEntry
from pyexec.domain.output_files import OutputFiles
from pyexec.domain.spec import Spec


class FailureType(StrEnum):
    """Reasons for which an execution is `failed` (docs/api.md)."""

    TIMEOUT = "timeout"
    CPU_LIMIT = "cpu_limit"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_LIMIT = "disk_limit"
    PROCESS_LIMIT = "process_limit"
    OUTPUT_LIMIT = "output_limit"
    SETUP_FAILED = "setup_failed"
    SETUP_TIMEOUT = "setup_timeout"
    IMAGE_UNAVAILABLE = "image_unavailable"
    QUEUE_TIMEOUT = "queue_timeout"
    SESSION_CLOSED = "session_closed"
    LOST = "lost"
    INTERNAL = "internal"


@frozen(kw_only=True)
class Usage:
    """The resources that the program used."""

    cpu_seconds: float
    peak_memory_bytes: int


@frozen(kw_only=True)
class Output:
    """The output and the displays as an encoded output log: in the event itself, or in the blob store.

    `truncated` names the streams of which only a part is stored."""

    inline: bytes | None = None
    blob: str | None = None
    truncated: tuple[str, ...] = ()


@frozen(kw_only=True)
class StoredEvent:
    """The time of the event by the writer's clock, and a nonce by which the writer recognizes its own event."""

    name: ClassVar[str]
    """The kind of event, as in event streams and timelines."""

    at: datetime
    nonce: str


class Event(StoredEvent):
    """An event of an execution."""


@frozen(kw_only=True)
class Submitted(Event):
    """The execution was accepted.

    `payload` names the archive in the blob store. It is None if the archive went directly to one replica, so that no
    other replica can run the execution. `pinned` names that replica, unless the code starts in the same append.
    `traceparent` and `tracestate` are the caller's trace context, if the replica exports traces."""

    name = "submitted"

    spec: Spec
    payload: str | None = None
    pinned: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


@frozen(kw_only=True)
class Claimed(Event):
    """A replica is responsible for the execution from now on."""

    name = "claimed"

    replica: str


@frozen(kw_only=True)
class Released(Event):
    """The execution returned to the queue before its code started. Any replica may claim it again."""

    name = "released"

    reason: str


@frozen(kw_only=True)
class Preparing(Event):
    """The replica must pull the image or build the environment before the start, and does so when it is its turn."""

    name = "preparing"


@frozen(kw_only=True)
class Running(Event):
    """The code may start from now on, and starts at most once. `image` is the digest of the sandbox's image."""

    name = "running"

    engine: str
    container: str
    image: str | None = None


@frozen(kw_only=True)
class Adopted(Event):
    """A replica adopted the program of a dead replica on the same engine. The code kept running."""

    name = "adopted"

    replica: str


@frozen(kw_only=True)
class KillRequested(Event):
    """A kill was requested. The event itself does not end the execution."""

    name = "kill_requested"


@frozen(kw_only=True)
class Finished(Event):
    """The program ended, with any exit code.

    In this and the other terminal events, `files` is None if no output files were collected, and
    `interpreter_restarted` is true if the session's interpreter was replaced because of this cell."""

    name = "finished"

    exit_code: int
    error: str | None = None
    error_type: str | None = None
    error_line: int | None = None
    traceback: tuple[TracebackEntry, ...] | None = None
    result: str | None = None
    result_truncated: bool = False
    usage: Usage | None = None
    output: Output = Output()
    files: OutputFiles | None = None
    interpreter_restarted: bool = False


@frozen(kw_only=True)
class Failed(Event):
    """The program did not end by itself, or never ran. `error_type` is the reason, `error` a sentence for people."""

    name = "failed"

    error_type: FailureType
    error: str
    exit_code: int | None = None
    usage: Usage | None = None
    output: Output = Output()
    files: OutputFiles | None = None
    interpreter_restarted: bool = False


@frozen(kw_only=True)
class Killed(Event):
    """The execution was ended by a kill request."""

    name = "killed"

    usage: Usage | None = None
    output: Output = Output()
    files: OutputFiles | None = None
    interpreter_restarted: bool = False


Terminal = Finished | Failed | Killed
