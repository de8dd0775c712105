"""Escape text of servers, programs and packages before it reaches a terminal."""

from __future__ import annotations

import re
import sys

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, and characters that change the direction or the lines of text."""


def printable(text: str) -> str:
    r"""Return the text with unsafe characters as escapes, such as `\x1b`."""
    return _UNSAFE.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""Return a JSON document with unsafe characters in its strings as escapes, such as `\u009b`."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_message(text: str = "", end: str = "\n") -> None:
    """Print a message of this command on standard error.

    If standard error is closed or full, the message is lost. The exit code still says how the command ended. Raise
    BrokenPipeError if the reader of standard error has exited."""
    if sys.stderr is None:  # closed by the parent; `print` would use standard output
        return
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"
