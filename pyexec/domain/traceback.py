"""Reads the traceback that an interpreter printed last: which exception ended the program, and where."""

import re
from collections.abc import Sequence

from attrs import frozen

_FRAME = re.compile(r'^\s+File "(?P<path>[^"]+)", line (?P<line>\d+)')
_EXCEPTION = re.compile(r"^(?P<name>[^\W\d]\w*(?:\.(?:[^\W\d]\w*|<locals>))*)(?:: ?(?P<message>.*))?$")
_HEADING = "Traceback (most recent call last):"
_GROUP_HEADING = f"  + Exception Group {_HEADING}"
_GROUP_MARGIN = "  | "
_GROUP_MEMBERS = re.compile(r"^  \+-\+-+ 1 -+$")

_NO_NETWORK = re.compile(
    r"\[Errno (?:101|-3)\]|Network is unreachable|Network unreachable|Temporary failure in name resolution"
)
"""What the C library says where there is no route (ENETUNREACH, EAI_AGAIN); libraries pass it on in their messages."""


NAME_CHARACTERS = 200
"""A program may call its exception anything; every index and every list shows the name."""


@frozen(kw_only=True)
class Crash:
    """The exception's class name without its module, its message, the innermost line in the user's files."""

    error_type: str
    error: str
    error_line: int | None

    @property
    def is_network_error(self) -> bool:
        """Whether it comes of a network that is not there."""
        return _NO_NETWORK.search(self.error) is not None


def parse_traceback(stderr: str, root: str = "/work/") -> Crash | None:
    """The crash that `stderr` ends with; None when there is none. `root` is where the user's files are.

    A message may have any number of lines, so whatever follows the exception counts as its message: ask only
    about a program that failed."""
    lines = stderr.rstrip("\n").split("\n")
    for start in range(len(lines) - 1, -1, -1):
        if lines[start] == _HEADING:
            return _read(lines[start + 1 :], root)
        if lines[start] == _GROUP_HEADING:
            return _read(_group_itself(lines[start + 1 :]), root)
    return _syntax_error(lines, root)


def _group_itself(lines: Sequence[str]) -> Sequence[str]:
    """An exception group's own traceback, without its margin and its members."""
    end = next((at for at, line in enumerate(lines) if _GROUP_MEMBERS.match(line)), len(lines))
    return [line.removeprefix(_GROUP_MARGIN) for line in lines[:end]]


def _syntax_error(lines: Sequence[str], root: str) -> Crash | None:
    """A `SyntaxError` of the main file has a frame but no heading, as the interpreter prints it."""
    start = next((at for at in range(len(lines) - 1, -1, -1) if _FRAME.match(lines[at])), None)
    crash = None if start is None else _read(lines[start:], root)
    return crash if crash is not None and crash.error_type.endswith("Error") else None


def _read(lines: Sequence[str], root: str) -> Crash | None:
    """Frames, all indented, then the exception on the first line that is not."""
    end = next((at for at, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    frames = [frame for line in lines[:end] if (frame := _FRAME.match(line))]
    exception = _EXCEPTION.match(lines[end]) if end < len(lines) else None
    if not frames or exception is None:
        return None
    name = exception["name"].rsplit(".", 1)[-1][:NAME_CHARACTERS]
    message = "\n".join([exception["message"] or "", *lines[end + 1 :]]).strip()
    own = [int(frame["line"]) for frame in frames if frame["path"].startswith(root)]
    return Crash(error_type=name, error=message or name, error_line=own[-1] if own else None)
