"""Every error the program raises on purpose. Each says who has to act: the caller, or the operator."""


class ExecutorError(Exception):
    """The root of all errors raised on purpose; its text is a sentence for a person."""

    code = "internal"


class InvalidRequest(ExecutorError):
    """The caller sent something malformed or not allowed; `field` names where, when there is a place."""

    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        if code is not None:
            self.code = code


class TooLarge(InvalidRequest):
    """What was sent, or what it would unpack to, is over a limit."""

    code = "too_large"


class UnsupportedArchive(InvalidRequest):
    """The upload is not an uncompressed tar."""

    code = "unsupported_archive"


class UnknownExecution(ExecutorError):
    """No execution has this id: it never existed, or its retention is over."""

    code = "not_found"


class UnknownFile(ExecutorError):
    """The execution brought back no such file."""

    code = "not_found"


class NotEnded(ExecutorError):
    """What was asked for is there once the execution has ended."""

    code = "not_ended"


class KeyReused(ExecutorError):
    """An Idempotency-Key came again, with another request than the first time."""

    code = "idempotency_key_reused"


class QueueFull(ExecutorError):
    """No slot is free and no more work may wait."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueTimeout(ExecutorError):
    """No slot became free within the queue timeout."""

    code = "queue_timeout"


class Unavailable(ExecutorError):
    """The event log or the engine does not answer; `execution_id` is set when one was already accepted."""

    code = "unavailable"

    def __init__(self, message: str, *, execution_id: str | None = None) -> None:
        super().__init__(message)
        self.execution_id = execution_id


class ConsulSessionLost(Unavailable):
    """This replica may have been taken for dead: what it believes to own may be another's by now. It appends
    nothing until it is a member again, which it becomes by itself."""


class ImageUnavailable(ExecutorError):
    """The image cannot be had, or has no Python that can run the supervisor."""

    code = "image_unavailable"


class SetupFailed(ExecutorError):
    """An environment cannot be made: a command or the installer ended with `exit_code`, or broke a limit."""

    code = "setup_failed"

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SetupTimeout(SetupFailed):
    """An environment was not ready in time."""

    code = "setup_timeout"


class EngineError(ExecutorError):
    """The container engine refused or broke an operation."""

    code = "engine"


class ContainerGone(EngineError):
    """The container is not there any more."""


class SandboxBroken(ExecutorError):
    """A sandbox ended, or spoke nonsense, before it said how its program ended."""

    code = "sandbox_broken"


class SandboxRefused(ExecutorError):
    """The supervisor could not unpack the archive (`disk_full`, `bad_archive`), or GO came too `late`."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Conflict(ExecutorError):
    """The event log has moved on since it was read: read again and decide anew."""

    code = "conflict"


class KeyTaken(ExecutorError):
    """An idempotency key already names an execution: `execution_id`, accepted with `fingerprint`."""

    code = "key_taken"

    def __init__(self, execution_id: str, fingerprint: str) -> None:
        super().__init__(f"the key already names {execution_id}")
        self.execution_id = execution_id
        self.fingerprint = fingerprint


class CorruptLog(ExecutorError):
    """A stored event cannot be read, or is not legal where it stands."""

    code = "corrupt_log"


class SettingsError(ExecutorError):
    """A setting is wrong; the text names it, its value and what is allowed."""

    code = "settings"


def first_error(group: BaseExceptionGroup[ExecutorError]) -> ExecutorError:
    """The first error in a group: the others are what it led to."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, ExecutorError):
        raise TypeError(error)
    return error
