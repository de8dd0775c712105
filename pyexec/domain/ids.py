"""Ids of executions (`exe_`) and of interpreter sessions (`ses_`): the prefix and 32 hex digits that sort by time of
creation (UUID version 7, RFC 9562 §5.7)."""

import re

ID_PATTERN = r"^exe_[0-9a-f]{32}$"
SESSION_ID_PATTERN = r"^ses_[0-9a-f]{32}$"
TICKS_PER_MS = 4096
_ID = re.compile(ID_PATTERN)
_SESSION_ID = re.compile(SESSION_ID_PATTERN)


def execution_id(time_ns: int, entropy: bytes, *, after: str | None = None) -> str:
    """Return an execution id for a time (nanoseconds since 1970) and eight random bytes.

    The id sorts after the id `after`, even if the clock is behind it (RFC 9562 §6.2)."""
    ticks = _ticks(time_ns)
    if after is not None:
        ticks = max(ticks, _ticks_of(after) + 1)
    return f"exe_{_uuid7(ticks, entropy):032x}"


def session_id(time_ns: int, entropy: bytes) -> str:
    """Return a session id for a time (nanoseconds since 1970) and eight random bytes."""
    return f"ses_{_uuid7(_ticks(time_ns), entropy):032x}"


def _ticks(time_ns: int) -> int:
    """Return a time in ticks of 1/4096 ms, so that ids of the same millisecond sort by time, too."""
    return time_ns * TICKS_PER_MS // 1_000_000


def _ticks_of(execution_id: str) -> int:
    return created_ms(execution_id) * TICKS_PER_MS + int(execution_id[17:20], 16)


def _uuid7(ticks: int, entropy: bytes) -> int:
    milliseconds, fraction = divmod(ticks, TICKS_PER_MS)
    random = int.from_bytes(entropy[:8], "big") & (2**62 - 1)
    return (milliseconds << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | random


def is_execution_id(text: str) -> bool:
    """Return True if `text` has the form of an execution id."""
    return _ID.fullmatch(text) is not None


def is_session_id(text: str) -> bool:
    """Return True if `text` has the form of a session id."""
    return _SESSION_ID.fullmatch(text) is not None


def created_ms(execution_id: str) -> int:
    """Return the creation time of an id, in whole milliseconds since 1970."""
    return int(execution_id[4:16], 16)


def id_prefix(milliseconds: int, bits: int) -> str:
    """Return the common prefix of all ids from one period of 2**bits milliseconds; `bits` is a multiple of four."""
    return f"exe_{milliseconds:012x}"[: 16 - bits // 4]
