"""What can happen to an execution. Facts, in the past tense; never changed once written."""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from pyexec.domain.output_files import OutputFiles
from pyexec.domain.spec import Spec


class FailureType(StrEnum):
    """Why an execution is `failed` (docs/api.md)."""

    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    SETUP_FAILED = "setup_failed"
    SETUP_TIMEOUT = "setup_timeout"
    IMAGE_UNAVAILABLE = "image_unavailable"
    QUEUE_TIMEOUT = "queue_timeout"
    LOST = "lost"
    INTERNAL = "internal"


@frozen(kw_only=True)
class Usage:
    """What the program took."""

    cpu_seconds: float
    peak_memory_bytes: int


@frozen(kw_only=True)
class Output:
    """What the program printed, as an encoded output log: in the event itself, or in the blob store."""

    inline: bytes | None = None
    blob: str | None = None


@frozen(kw_only=True)
class Event:
    """When it happened, by the writer's clock, and a nonce by which the writer knows its own event again."""

    at: datetime
    nonce: str


@frozen(kw_only=True)
class Submitted(Event):
    """Accepted. `payload` names the archive in the blob store; None when it went straight to a sandbox, and then
    `pinned` names the replica whose sandbox that is, while it has yet to be claimed for it."""

    spec: Spec
    payload: str | None = None
    pinned: str | None = None


@frozen(kw_only=True)
class Claimed(Event):
    """A replica answers for it from here on."""

    replica: str


@frozen(kw_only=True)
class Released(Event):
    """Given back before its code started; anyone may claim it again."""

    reason: str


@frozen(kw_only=True)
class Preparing(Event):
    """What it needs is being installed, or its image pulled."""


@frozen(kw_only=True)
class Running(Event):
    """Its code may start from here on, and starts at most once. `image` is the digest of what it runs in."""

    engine: str
    container: str
    image: str | None = None


@frozen(kw_only=True)
class Adopted(Event):
    """Another replica on the same engine follows its sandbox from here on; its code went on running meanwhile."""

    replica: str


@frozen(kw_only=True)
class KillRequested(Event):
    """Somebody wants it to end. Ends nothing by itself."""


@frozen(kw_only=True)
class Finished(Event):
    """The program ended, with any exit code. `files`, here and below, is None when none came."""

    exit_code: int
    error: str | None = None
    error_type: str | None = None
    error_line: int | None = None
    result: str | None = None
    result_truncated: bool = False
    usage: Usage | None = None
    output: Output = Output()
    files: OutputFiles | None = None


@frozen(kw_only=True)
class Failed(Event):
    """It did not come to its own end; `error_type` says why, `error` says it to a person."""

    error_type: FailureType
    error: str
    exit_code: int | None = None
    usage: Usage | None = None
    output: Output = Output()
    files: OutputFiles | None = None


@frozen(kw_only=True)
class Killed(Event):
    """Ended because somebody asked for it."""

    usage: Usage | None = None
    output: Output = Output()
    files: OutputFiles | None = None


Terminal = Finished | Failed | Killed
