"""How a run ended, as its terminal event: the one place that tells a program's failure from ours."""

from datetime import datetime

from attrs import evolve, frozen

from pyexec.domain.events import Failed, FailureType, Finished, Killed, Output, Terminal, Usage
from pyexec.domain.output_files import OutputFiles
from pyexec.domain.spec import Limits
from pyexec.domain.traceback import Crash, parse_traceback

TIMEOUT_EXIT, KILLED_EXIT = 124, 137
ERROR_CHARACTERS = 1000
NETWORK_HINT = (
    "(the network is disabled in this run; config.network_disabled: false, or --network, gives it one)"
)


@frozen(kw_only=True)
class RunOutcome:
    """What was seen of the end. `reason` is `exit`, `killed`, `stopped` (with the server), `lost` (with the engine),
    `broken`, or the limit that ended it; `detail` says more where there is more to say."""

    reason: str
    exit_code: int = 0
    signalled: bool = False
    usage: Usage | None = None
    result: str | None = None
    result_truncated: bool = False
    detail: str = ""

    @property
    def reported_by_supervisor(self) -> bool:
        """Whether the supervisor itself said how it ended, and so is still there."""
        return self.usage is not None


def terminal_event(
    ended: RunOutcome,
    *,
    limits: Limits,
    output_max: int,
    stderr_tail: str,
    output: Output,
    files: OutputFiles | None,
    at: datetime,
    nonce: str,
) -> Terminal:
    """The terminal event for what was seen."""
    code: int | None
    match ended.reason:
        case "exit":
            crash = parse_traceback(stderr_tail) if ended.exit_code == 1 and not ended.signalled else None
            return Finished(
                at=at,
                nonce=nonce,
                exit_code=ended.exit_code,
                error_type=crash.error_type if crash else None,
                error=_error_of(crash, limits) if crash else None,
                error_line=crash.error_line if crash else None,
                result=ended.result,
                result_truncated=ended.result_truncated,
                usage=ended.usage,
                output=output,
                files=files,
            )
        case "killed":
            return Killed(at=at, nonce=nonce, usage=ended.usage, output=output, files=files)
        case "timeout":
            kind, code = FailureType.TIMEOUT, TIMEOUT_EXIT
            error = f"the program ran longer than {limits.timeout_seconds:g} s and was ended"
        case "out_of_memory":
            kind, code = FailureType.OUT_OF_MEMORY, KILLED_EXIT
            error = f"the program took more than {limits.memory_mb} MiB of memory and was ended"
        case "output_limit":
            kind, code = FailureType.OUTPUT_LIMIT, KILLED_EXIT
            error = ended.detail or f"the program printed more than {output_max} bytes and was ended"
        case "stopped":
            kind, code = FailureType.LOST, None
            error = "the server was stopped while the program ran"
        case "lost":
            kind, code = FailureType.LOST, None
            error = "Docker went away while the program ran, and its sandbox with it; the code may have run"
        case _:
            kind, code = FailureType.INTERNAL, None
            error = f"the sandbox failed: {ended.detail or ended.reason}"
    return Failed(
        at=at,
        nonce=nonce,
        error_type=kind,
        error=error,
        exit_code=code,
        usage=ended.usage,
        output=output,
        files=files,
    )


def _error_of(crash: Crash, limits: Limits) -> str:
    if limits.network_disabled and crash.is_network_error:
        return f"{crash.error} {NETWORK_HINT}"
    return crash.error


def shortened(terminal: Terminal) -> Terminal:
    """The same end with texts that fit in any event log; the program's whole output is kept beside them."""
    if isinstance(terminal, Failed):
        return evolve(terminal, error=terminal.error[:ERROR_CHARACTERS])
    if isinstance(terminal, Finished):
        error = terminal.error and terminal.error[:ERROR_CHARACTERS]
        cut = terminal.result_truncated or terminal.result is not None
        return evolve(terminal, error=error, result=None, result_truncated=cut)
    return terminal
