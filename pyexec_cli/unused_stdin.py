"""Detect input on standard input that no argument uses."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import termios
from collections.abc import Iterable

_STDIN = 0


def is_stdin(name: str) -> bool:
    """Return True if an argument means standard input: -, /dev/stdin, or the same file by another name."""
    try:
        return name == "-" or os.path.samestat(os.stat(name), os.fstat(_STDIN))
    except (OSError, ValueError):
        return False


def has_unused_stdin(names: Iterable[str]) -> bool:
    """Return True if standard input is a pipe or a file with unread data, and no argument means it.

    Read nothing: in a loop such as `while read`, the data belongs to another command.
    """
    return _unread_bytes() != 0 and not any(map(is_stdin, names))


def _unread_bytes() -> int:
    """Return how many bytes can be read at once. A device, such as a terminal or /dev/null, counts as empty."""
    if sys.stdin is None:  # closed by the parent; the descriptor may belong to another file now
        return 0
    try:
        if stat.S_ISCHR(os.fstat(_STDIN).st_mode):
            return 0
        (count,) = struct.unpack("i", fcntl.ioctl(_STDIN, termios.FIONREAD, struct.pack("i", 0)))
    except OSError:  # a directory, for example
        return 0
    return int(count)
