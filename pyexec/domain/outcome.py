"""Convert the outcome of a run to its terminal event."""

import signal
from datetime import datetime

from attrs import evolve, frozen

from pyexec.domain.crash import Crash
from pyexec.domain.events import Failed, FailureType, Finished, Killed, Output, Terminal, Usage
from pyexec.domain.missing_module import missing_module_hint
from pyexec.domain.output_files import OutputFiles
from pyexec.domain.spec import Spec

TIMEOUT_EXIT, KILLED_EXIT = 124, 137
ERROR_CHARACTERS = 1000
NETWORK_HINT = (
    "(the network is disabled in this run; enable it with config.network_disabled: false, or --network)"
)
CELL_NETWORK_HINT = (
    "(the network is disabled in this session; open one with config.network_disabled: false, or --network)"
)
DISK_HINT = (
    "(files in /work and /tmp together may take {} MiB in this run; change it with config.disk_mb, or --disk)"
)
STDIN_HINT = "(this run has no standard input; pass it with stdin, or --stdin FILE)"
CELL_DISK_HINT = (
    "(files in /work and /tmp together may take {} MiB in this session; delete files, or open one with config.disk_mb, "
    "or --disk)"
)


@frozen(kw_only=True)
class RunOutcome:
    """The end of a run, as the replica observed it.

    `reason` is `exit`, `killed`, `stopped` (the server shut down), `lost` (Docker was unavailable, and then the sandbox
    was gone), `broken` (the sandbox failed), `session_lost` or `session_closed` (for a cell), or the name of the
    exceeded limit. `detail` adds an explanation. `process_limit` is the limit on processes and threads if the program
    has reached it, whatever ended it."""

    reason: str
    exit_code: int = 0
    signalled: bool = False
    usage: Usage | None = None
    result: str | None = None
    result_truncated: bool = False
    process_limit: int | None = None
    detail: str = ""
    reported_by_supervisor: bool = False
    """True if the supervisor reported the end itself, so that it is still running."""
    interpreter_restarted: bool = False
    """True if the interpreter of the session was replaced because of this cell."""

    @property
    def leaves_sandbox_usable(self) -> bool:
        """True if the program ended without a limit of the kernel: the sandbox may prove that it is as before."""
        return (
            self.reported_by_supervisor and self.reason in ("exit", "timeout") and self.process_limit is None
        )


def terminal_event(
    outcome: RunOutcome,
    *,
    spec: Spec,
    output_max: int,
    setup_allowed: bool = True,
    crash: Crash | None,
    output: Output,
    files: OutputFiles | None,
    at: datetime,
    nonce: str,
) -> Terminal:
    """Return the terminal event of a run with this outcome. `setup_allowed` is true if runs may install packages.

    `crash` is the exception of the main thread. It counts only with exit code 1, which an uncaught exception has."""
    limits = spec.limits
    code: int | None
    match outcome.reason:
        case "exit":
            if outcome.exit_code != 1 or outcome.signalled:
                crash = None
            return Finished(
                at=at,
                nonce=nonce,
                exit_code=outcome.exit_code,
                error_type=crash.error_type if crash else None,
                error=_error_text(outcome, crash, spec, setup_allowed),
                error_line=crash.error_line if crash else None,
                traceback=crash.traceback if crash else None,
                result=outcome.result,
                result_truncated=outcome.result_truncated,
                usage=outcome.usage,
                output=output,
                files=files,
                interpreter_restarted=outcome.interpreter_restarted,
            )
        case "killed":
            return Killed(
                at=at,
                nonce=nonce,
                usage=outcome.usage,
                output=output,
                files=files,
                interpreter_restarted=outcome.interpreter_restarted,
            )
        case "timeout":
            kind, code = FailureType.TIMEOUT, TIMEOUT_EXIT
            error = f"the program ran longer than {limits.timeout_seconds:g} s and was stopped"
        case "cpu_limit":
            kind, code = FailureType.CPU_LIMIT, TIMEOUT_EXIT
            error = f"the program used more than {limits.cpu_seconds:g} s of processor time and was stopped"
        case "out_of_memory":
            kind, code = FailureType.OUT_OF_MEMORY, KILLED_EXIT
            error = f"the program used more than {limits.memory_mb} MiB of memory and was stopped"
        case "disk_limit":
            kind, code = FailureType.DISK_LIMIT, KILLED_EXIT
            error = f"the program's files in /work and /tmp took more than {limits.disk_mb} MiB and it was stopped"
        case "process_limit":
            kind, code = FailureType.PROCESS_LIMIT, KILLED_EXIT
            error = "the program kept starting processes or threads at its limit (PYEXEC_PIDS_MAX) and was stopped"
        case "output_limit":
            kind, code = FailureType.OUTPUT_LIMIT, KILLED_EXIT
            error = outcome.detail or f"the program printed more than {output_max} bytes and was stopped"
        case "stopped":
            kind, code = FailureType.LOST, None
            error = "the server shut down while the program was running"
        case "lost":
            kind, code = FailureType.LOST, None
            error = "Docker became unavailable during the run, and the sandbox is gone; the code may have run"
        case "session_lost":
            kind, code = FailureType.LOST, None
            error = outcome.detail
        case "session_closed":
            kind, code = FailureType.SESSION_CLOSED, None
            error = outcome.detail
        case _:
            kind, code = FailureType.INTERNAL, None
            error = f"the sandbox failed: {outcome.detail or outcome.reason}"
    return Failed(
        at=at,
        nonce=nonce,
        error_type=kind,
        error=f"{error}; it {reached}" if (reached := _reached_limit(outcome)) else error,
        exit_code=code,
        usage=outcome.usage,
        output=output,
        files=files,
        interpreter_restarted=outcome.interpreter_restarted,
    )


def _error_text(outcome: RunOutcome, crash: Crash | None, spec: Spec, setup_allowed: bool) -> str | None:
    """Return the error of a program that ended by itself. A limit that it reached is an error only if it failed."""
    reached = _reached_limit(outcome) if outcome.exit_code else None
    if crash is None:
        ends = (_ending_signal(outcome), reached)
        return f"the program {', and '.join(filter(None, ends))}" if any(ends) else None
    text, limits = crash.error, spec.limits
    is_cell = spec.session_id is not None
    if crash.is_end_of_input and not spec.stdin and not is_cell:
        text = f"{text} {STDIN_HINT}"
    if limits.network_disabled and crash.is_network_error:
        text = f"{text} {CELL_NETWORK_HINT if is_cell else NETWORK_HINT}"
    if crash.is_disk_full:
        text = f"{text} {(CELL_DISK_HINT if is_cell else DISK_HINT).format(limits.disk_mb)}"
    if setup_allowed and (hint := missing_module_hint(crash, is_cell=is_cell)) is not None:
        text = f"{text} {hint}"
    return f"{text} (the program {reached})" if reached else text


def _ending_signal(outcome: RunOutcome) -> str | None:
    if not outcome.signalled:
        return None
    number = outcome.exit_code - 128
    try:
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:  # most real-time signals have no name
        return f"was ended by signal {number}"


def _reached_limit(outcome: RunOutcome) -> str | None:
    if outcome.process_limit is None:
        return None
    return f"reached the limit of {outcome.process_limit} processes and threads"


def shortened(terminal: Terminal) -> Terminal:
    """Return a terminal event with shortened texts, which fit into any event log. The output is not shortened."""
    if isinstance(terminal, Failed):
        return evolve(terminal, error=terminal.error[:ERROR_CHARACTERS])
    if isinstance(terminal, Finished):
        error = terminal.error and terminal.error[:ERROR_CHARACTERS]
        cut = terminal.result_truncated or terminal.result is not None
        return evolve(terminal, error=error, result=None, result_truncated=cut, traceback=None)
    return terminal
