"""Find the exception that ended a program in the traceback that its interpreter printed."""

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
"""Messages of the C library without a route (ENETUNREACH, EAI_AGAIN), which other libraries include in theirs."""

NAME_CHARACTERS = 200
"""Maximum length of an exception's name. A program chooses the name, and indexes and lists show it."""


@frozen(kw_only=True)
class Crash:
    """The exception that ended a program: its class name without the module, its message, and the line of the innermost
    frame in the user's own files."""

    error_type: str
    error: str
    error_line: int | None

    @property
    def is_network_error(self) -> bool:
        """True if the message says that there is no network."""
        return _NO_NETWORK.search(self.error) is not None


def parse_traceback(stderr: str, root: str = "/work/") -> Crash | None:
    """Return the crash at the end of `stderr`; None if there is none. `root` is the directory of the user's files.

    All text after the exception counts as its message, because a message may have any number of lines. So call this
    only for a program that failed."""
    lines = stderr.rstrip("\n").split("\n")
    for start in range(len(lines) - 1, -1, -1):
        if lines[start] == _HEADING:
            return _read(lines[start + 1 :], root)
        if lines[start] == _GROUP_HEADING:
            return _read(_without_members(lines[start + 1 :]), root)
    return _syntax_error(lines, root)


def _without_members(lines: Sequence[str]) -> Sequence[str]:
    """Return an exception group's own traceback, without the margin and without its members."""
    end = next((at for at, line in enumerate(lines) if _GROUP_MEMBERS.match(line)), len(lines))
    return [line.removeprefix(_GROUP_MARGIN) for line in lines[:end]]


def _syntax_error(lines: Sequence[str], root: str) -> Crash | None:
    """Read a `SyntaxError` of the main file, which the interpreter prints with a frame but without a heading."""
    start = next((at for at in range(len(lines) - 1, -1, -1) if _FRAME.match(lines[at])), None)
    crash = None if start is None else _read(lines[start:], root)
    return crash if crash is not None and crash.error_type.endswith("Error") else None


def _read(lines: Sequence[str], root: str) -> Crash | None:
    """Read the frames, which are indented, then the exception on the first line that is not."""
    end = next((at for at, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    frames = [frame for line in lines[:end] if (frame := _FRAME.match(line))]
    exception = _EXCEPTION.match(lines[end]) if end < len(lines) else None
    if not frames or exception is None:
        return None
    name = exception["name"].rsplit(".", 1)[-1][:NAME_CHARACTERS]
    message = "\n".join([exception["message"] or "", *lines[end + 1 :]]).strip()
    own = [int(frame["line"]) for frame in frames if frame["path"].startswith(root)]
    return Crash(error_type=name, error=message or name, error_line=own[-1] if own else None)
