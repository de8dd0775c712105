"""All errors that the server raises on purpose. The text of an error is a sentence for the caller or the operator."""

from collections.abc import Iterator
from contextlib import contextmanager

QUOTE_LENGTH_MAX = 100
"""Maximum number of characters of a request's content that an error message repeats."""


def quote(text: str | bytes | None) -> str:
    """Return the text in quotes for an error message, cut to the first characters if it is long."""
    if text is None or len(text) <= QUOTE_LENGTH_MAX:
        return repr(text)
    return f"{text[:QUOTE_LENGTH_MAX]!r}…"


def shorten(text: str, length_max: int = QUOTE_LENGTH_MAX) -> str:
    """Return the text for an error message, cut to the first `length_max` characters if it is longer."""
    return text if len(text) <= length_max else f"{text[:length_max]}…"


class ExecutorError(Exception):
    """Base class of all errors that are raised on purpose."""

    code = "internal"


class InvalidRequest(ExecutorError):
    """The request is malformed or not allowed. `field` names the part of the request at fault, if there is one."""

    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code


class TooLarge(InvalidRequest):
    """The request, or the content of its archive once unpacked, exceeds a limit."""

    code = "too_large"


class UnsupportedArchive(InvalidRequest):
    """The upload is not an uncompressed tar."""

    code = "unsupported_archive"


class UnknownExecution(ExecutorError):
    """No execution has this id: it never existed, or it was deleted after its retention."""

    code = "not_found"


class UnknownSession(ExecutorError):
    """No interpreter session has this id: it never existed, or it was deleted after its retention."""

    code = "not_found"


class SessionEnded(ExecutorError):
    """The interpreter session is closed."""

    code = "session_closed"


class TooManySessions(ExecutorError):
    """No more interpreter sessions can be opened on this replica or for this tenant now."""

    code = "too_many_sessions"


class NoSessionMemory(TooManySessions):
    """This replica has too little memory for a session; another one may have enough."""


class OwnedElsewhere(ExecutorError):
    """The request is for the replica `owner`, to which the web layer forwards it."""

    code = "owned_elsewhere"

    def __init__(self, owner: str) -> None:
        super().__init__(f"the session belongs to {owner}")
        self.owner = owner


class UnknownFile(ExecutorError):
    """The execution has no output file with this path."""

    code = "not_found"


class NotEnded(ExecutorError):
    """The requested data is available only after the execution has ended."""

    code = "not_ended"


class KeyReused(ExecutorError):
    """An Idempotency-Key was sent again with a different request."""

    code = "idempotency_key_reused"


class QueueFull(ExecutorError):
    """All slots are busy and the queue is full."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueTimeout(ExecutorError):
    """The execution waited longer than the queue timeout for a slot or for its setup to begin."""

    code = "queue_timeout"


class Unavailable(ExecutorError):
    """The event log, Docker or a store does not answer. `execution_id` is set if an execution was already accepted.

    An append that raises this error may have taken effect, or may still do so, unless it is a `NotWritten`."""

    code = "unavailable"

    def __init__(self, message: str, *, execution_id: str | None = None) -> None:
        super().__init__(message)
        self.execution_id = execution_id


class NotWritten(Unavailable):
    """The operation wrote nothing, or has undone it, so the request can be sent to another replica."""


class ConsulSessionLost(NotWritten):
    """This replica's Consul session has expired, so other replicas may adopt its executions.

    The replica appends no events until it has a new session, which it requests by itself."""


class ShuttingDown(NotWritten):
    """This replica shuts down and starts nothing more."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; send the request again")


class SessionMoving(Unavailable):
    """The session has no owner now, or its owner shuts down. Another replica is about to adopt it."""

    def __init__(self) -> None:
        super().__init__("no replica serves the session at the moment; send the request again")


class ImageUnavailable(ExecutorError):
    """The image cannot be pulled, or has no Python that can run the supervisor."""

    code = "image_unavailable"


class PythonMismatch(ImageUnavailable):
    """The Python of the image does not satisfy the `requires-python` of the script."""


class SetupFailed(ExecutorError):
    """The setup of an environment failed: a command or the installer ended with `exit_code`, or exceeded a limit.

    `field` names the field of the request that the failed step carries out, if a step failed. `is_whole` is true if
    the message quotes the whole error message of the step; otherwise, the output of the setup says more."""

    code = "setup_failed"

    def __init__(
        self, message: str, *, field: str | None = None, exit_code: int | None = None, is_whole: bool = False
    ) -> None:
        super().__init__(message)
        self.is_whole = is_whole
        self.field = field
        self.exit_code = exit_code


class SetupTimeout(SetupFailed):
    """The setup of an environment timed out."""

    code = "setup_timeout"


class EngineError(ExecutorError):
    """The container engine rejected an operation, or failed to carry it out."""

    code = "engine"


class ContainerGone(EngineError):
    """The container no longer exists."""


class CommitRefused(EngineError):
    """The container cannot become an image, because of its content. Another attempt would fail, too."""


class SandboxBroken(ExecutorError):
    """A sandbox ended, or sent malformed data, before it reported how its program ended."""

    code = "sandbox_broken"


class SandboxStalled(SandboxBroken):
    """The supervisor of a sandbox did not take its program, or did not unpack the archive, in time, while the engine
    was healthy."""


class SandboxRefused(ExecutorError):
    """The supervisor could not unpack the archive (code `disk_full` or `bad_archive`), or the start signal came too
    late (code `late`)."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class SessionFileError(ExecutorError):
    """The supervisor of a session could not read, write or delete a file.

    Codes: `not_found`, `not_a_directory` (a part of the path is a file or a link), `is_directory`, `disk_full`,
    `invalid_path`, `error`."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Conflict(ExecutorError):
    """The event log has changed since it was read. Read it again and decide again."""

    code = "conflict"


class KeyTaken(ExecutorError):
    """The idempotency key already belongs to `execution_id`, which was accepted with `fingerprint`."""

    code = "key_taken"

    def __init__(self, execution_id: str, fingerprint: str) -> None:
        super().__init__(f"the idempotency key already belongs to {execution_id}")
        self.execution_id = execution_id
        self.fingerprint = fingerprint


class CorruptLog(ExecutorError):
    """A stored event cannot be read, or is not legal at its position."""

    code = "corrupt_log"


class SettingsError(ExecutorError):
    """A setting is wrong. The text names the setting, its value and what is allowed."""

    code = "settings"


def first_error(group: BaseExceptionGroup[ExecutorError]) -> ExecutorError:
    """Return the first error of a group, which is the cause of the others."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, ExecutorError):
        raise TypeError(error)
    return error


@contextmanager
def raising_first_error() -> Iterator[None]:
    """Raise the first error of a group of errors, instead of the group."""
    failure: ExecutorError | None = None
    try:
        yield
    except* ExecutorError as errors:
        failure = first_error(errors)
    # Raised here because Python 3.11.2 wraps an exception that is raised inside `except*` in a group.
    if failure is not None:
        raise failure
