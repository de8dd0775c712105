"""Execution ids: `exe_` and 32 hex digits that sort by time of creation (UUID version 7, RFC 9562 §5.7)."""

import re

ID_PATTERN = r"^exe_[0-9a-f]{32}$"
_ID = re.compile(ID_PATTERN)


def execution_id(time_ns: int, entropy: bytes) -> str:
    """Return an id for a time (nanoseconds since 1970) and eight random bytes.

    Twelve bits of the id count fractions of a millisecond, so that ids of the same millisecond sort by time, too."""
    milliseconds, rest = divmod(time_ns, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    random = int.from_bytes(entropy[:8], "big") & (2**62 - 1)
    value = (milliseconds << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | random
    return f"exe_{value:032x}"


def is_execution_id(text: str) -> bool:
    """Return True if `text` has the form of an execution id."""
    return _ID.fullmatch(text) is not None


def created_ms(execution_id: str) -> int:
    """Return the creation time of an id, in whole milliseconds since 1970."""
    return int(execution_id[4:16], 16)


def id_prefix(milliseconds: int, bits: int) -> str:
    """Return the common prefix of all ids from one period of 2**bits milliseconds; `bits` is a multiple of four."""
    return f"exe_{milliseconds:012x}"[: 16 - bits // 4]
