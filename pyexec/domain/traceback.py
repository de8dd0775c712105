"""Reads the traceback that an interpreter printed last: which exception ended the program, and where."""

import re

from attrs import frozen

_FRAME = re.compile(r'^\s+File "(?P<path>[^"]+)", line (?P<line>\d+)')
_EXCEPTION = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_HEADING = "Traceback (most recent call last):"


@frozen(kw_only=True)
class Crash:
    """The exception's class name without its module, its message, and the innermost line in the user's files."""

    error_type: str
    error: str
    error_line: int | None


def parse_traceback(stderr: str, root: str = "/work/") -> Crash | None:
    """The crash that `stderr` ends with; None when it does not end with one. `root` is where the user's files are.

    A `SyntaxError` of the main file has frames but no heading, as the interpreter prints it."""
    lines = stderr.rstrip("\n").split("\n")
    heading = max((i for i, line in enumerate(lines) if line == _HEADING), default=None)
    start = heading
    if start is None:
        start = next((i for i in range(len(lines) - 1, -1, -1) if _FRAME.match(lines[i])), None)
    if start is None:
        return None
    line_number: int | None = None
    for index in range(start, len(lines)):
        if frame := _FRAME.match(lines[index]):
            if frame["path"].startswith(root):
                line_number = int(frame["line"])
        elif index > start and (exception := _EXCEPTION.match(lines[index])):
            if heading is None and not exception["name"].endswith("Error"):
                return None
            message = "\n".join([exception["message"] or "", *lines[index + 1 :]]).strip()
            name = exception["name"].rsplit(".", 1)[-1]
            return Crash(error_type=name, error=message or name, error_line=line_number)
    return None
