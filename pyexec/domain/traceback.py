"""Find the exception that ended a program's main thread in what its interpreter prints to stderr.

CPython prints more tracebacks than that one: those of threads, finalizers and exit functions, with a line before that
says so, and those that a program prints itself. A message may contain a traceback, too, for example a child's. The
traceback of the main thread begins with the module frame of the script, so the last such traceback counts."""

import re

from attrs import Factory, define, field

from pyexec.domain.crash import MESSAGE_CHARACTERS, NAME_CHARACTERS, Crash, cut_message
from pyexec.domain.stderr_lines import LINE_BYTES, StderrLines, one_line
from pyexec.domain.traceback_markers import HEADING, find_marker

_FRAME = re.compile(
    rb'^(?:  \| )?  File "(?P<path>[^\n]+)", line (?P<line>[0-9]{1,9})(?:, in (?P<name>[^\n]*))?$',
    re.MULTILINE,
)
_AFTER_FRAMES = re.compile(rb"^(?:[^ \n]|  \+ Exception Group Traceback )", re.MULTILINE)
_AFTER_GROUP_FRAMES = re.compile(rb"^(?!  \| (?: |$))", re.MULTILINE)
_MARGIN = "  | "
_GROUP = b"  + Exception Group "
"""The text before `Traceback` in the heading of an exception group."""
_EXCEPTION = re.compile(
    r"(?P<name>[^\W\d]\w*(?:\.(?:[^\W\d]\w*|<locals>))*)(?:: ?(?P<message>.*))?", re.DOTALL
)

_ANY_EXCEPTION = re.compile(r"(?P<name>[^:\n]+)(?:: ?(?P<message>.*))?", re.DOTALL)
"""A class may have any name: `type("A-B", (Exception,), {})`."""


@define(kw_only=True)
class _Traceback:
    """One traceback while it is read: first its frames, then the exception's name, then the message."""

    is_group: bool = False
    is_syntax_error: bool = False
    is_elsewhere: bool = False
    """True if a line before it says that it is not the main thread's."""
    has_frames: bool = False
    is_main: bool = False
    own_line: int | None = None
    name: str = ""
    message: str = ""
    ended: bool = False

    def add_text(self, text: bytes) -> None:
        """Append to the message. Text after the maximum length is dropped."""
        missing = MESSAGE_CHARACTERS + 1 - len(self.message)
        if self.ended or missing <= 0:
            return
        lines = text[: 8 * missing].decode("utf-8", "replace")
        if self.is_group:
            lines = "\n".join(line.removeprefix(_MARGIN) for line in lines.split("\n"))
        # Blank lines at the beginning do not use up the message's length.
        self.message = (self.message + lines).lstrip()[: MESSAGE_CHARACTERS + 1]

    def crash(self) -> Crash:
        """Return the exception."""
        message = cut_message(self.message.rstrip())
        return Crash(error_type=self.name, error=message or self.name, error_line=self.own_line)


@define
class TracebackParser:
    """Reads stderr in chunks of any size. Memory is bounded, and time is linear in the size of the output.

    `script` is the path of the program's main file below `root`, the directory of the user's files.

    All text after an exception counts as its message, because a message may have any number of lines. So use the
    result only for a program that failed."""

    script: str = "main.py"
    root: str = "/work/"

    _lines: StderrLines = field(
        default=Factory(lambda self: StderrLines((self.root + self.script, self.script)), takes_self=True),
        init=False,
    )
    _open: _Traceback | None = field(default=None, init=False)
    """The traceback whose frames are being read."""
    _main: _Traceback | None = field(default=None, init=False)
    _printed: _Traceback | None = field(default=None, init=False)
    """The last traceback of unknown origin. It counts if there is no other, because Python omits outer frames above
    its limit."""
    _is_elsewhere: bool = field(default=False, init=False)
    """True if the next traceback is not the main thread's."""
    _last: _Traceback | None = field(default=None, init=False)
    _at_start: bool = field(default=True, init=False)
    """True until the first lines are read."""

    def feed(self, data: bytes) -> None:
        """Read the next chunk."""
        for lines in self._lines.feed(data):
            self._read(lines)

    def finish(self) -> Crash | None:
        """Return the exception that ended the main thread, or None. Call this after the last chunk."""
        for lines in self._lines.finish():
            self._read(lines)
        found = self._main or self._printed
        return found.crash() if found else None

    def _read(self, lines: bytes) -> None:
        """Read whole lines."""
        at = 0
        while at < len(lines):
            at = (
                self._read_text(lines, at) if self._open is None else self._read_frames(self._open, lines, at)
            )
        self._at_start = False

    def _read_text(self, lines: bytes, at: int) -> int:
        """Read up to the end of the next marker line. Return where to continue."""
        marker = find_marker(lines, at)
        if marker is None:
            self._add_text(lines[at:])
            return len(lines)
        end = marker.end() + 1
        kind = marker.lastgroup
        if kind == "members":
            self._add_text(lines[at : marker.start()])
            self._end_messages(groups_only=True)
            self._add_text(lines[marker.start() : end])
        elif kind == "uncompiled":
            self._add_text(lines[at:end])
            is_first = self._at_start and marker.start() == 0
            if not self._is_elsewhere and (is_first or marker["uncompiled"] != b"MemoryError"):
                self._printed = _uncompiled(marker["uncompiled"])
        elif kind == "bare":
            self._add_text(lines[at:end])
            self._add_bare_group(marker["bare_name"], marker["bare_message"])
        elif kind in ("other", "warning", "original"):
            self._add_text(lines[at : marker.start()])
            self._end_messages()
            self._is_elsewhere = kind == "other"
        elif kind == "inline" and not self._is_after_progress(lines, marker.start()):
            self._add_text(lines[at:end])
        elif kind == "chain":
            self._add_text(lines[at:end])
            self._is_elsewhere = self._last is not None and self._last.is_elsewhere
        else:
            self._add_text(lines[at:end])
            self._open = _Traceback(
                is_group=kind == "group" or lines.endswith(_GROUP, 0, marker.start()),
                is_syntax_error=kind == "syntax",
                is_elsewhere=self._is_elsewhere,
            )
            if kind == "syntax":
                self._add_frames(self._open, lines[marker.start() : end])
        return end

    def _is_after_progress(self, lines: bytes, heading: int) -> bool:
        """Return True if the heading follows an unfinished line of the program, such as a progress bar.

        Headings in the members of a group, in indented text and in the message of an exception are no such headings."""
        before = lines[lines.rfind(b"\n", 0, heading) + 1 : heading]
        return self._main is None and before.removesuffix(b"Exception Group ").strip(b" |+-\t") != b""

    def _read_frames(self, opened: _Traceback, lines: bytes, at: int) -> int:
        """Read frames, then the line with the exception. Return where to continue."""
        after = (_AFTER_GROUP_FRAMES if opened.is_group else _AFTER_FRAMES).search(lines, at)
        start = after.start() if after else len(lines)
        if start > at:
            self._add_frames(opened, lines[at:start])
            self._add_text(lines[at:start])
        if start == len(lines):
            return start
        self._open = None
        # If a heading follows, the program has printed frames without an exception.
        if not opened.has_frames or lines.startswith((HEADING, _GROUP), start):
            return start
        end = lines.index(b"\n", start) + 1
        if opened.is_syntax_error and lines.find(b"Error", start, end) < 0:
            return start
        text = lines[start : min(end, start + LINE_BYTES)].decode("utf-8", "replace").rstrip("\n")
        exception = _EXCEPTION.fullmatch(text.removeprefix(_MARGIN) if opened.is_group else text)
        if exception is None and opened.is_main and not opened.is_group:
            exception = _ANY_EXCEPTION.fullmatch(text)
        if exception is None:
            return start
        if opened.is_syntax_error and not exception["name"].endswith("Error"):
            return start
        opened.name = exception["name"].rsplit(".", 1)[-1][:NAME_CHARACTERS]
        self._add_text(lines[start:end])
        self._last, self._is_elsewhere = opened, False
        if opened.is_main:
            self._main = opened
        elif not opened.is_elsewhere:
            self._printed = opened
        opened.message = (exception["message"] or "").lstrip()[: MESSAGE_CHARACTERS + 1]
        if opened.message:
            opened.message += "\n"
        return end

    def _add_bare_group(self, name: bytes, message: bytes) -> None:
        """Record an exception group without frames, which has no heading. `except*` raises such groups."""
        group = _Traceback(
            is_group=True,
            is_elsewhere=self._is_elsewhere,
            name=name.decode("utf-8", "replace").rsplit(".", 1)[-1][:NAME_CHARACTERS],
            message=message[: 4 * MESSAGE_CHARACTERS].decode("utf-8", "replace").strip() + "\n",
        )
        self._last, self._is_elsewhere = group, False
        if not group.is_elsewhere:
            self._printed = group

    def _add_frames(self, opened: _Traceback, lines: bytes) -> None:
        script = one_line(self.script)
        for frame in _FRAME.finditer(lines):
            path = frame["path"].decode("utf-8", "replace")
            is_script = path in (script, self.root + script)
            if not opened.has_frames:
                opened.is_main = is_script and frame["name"] == (
                    None if opened.is_syntax_error else b"<module>"
                )
            opened.has_frames = True
            is_own = is_script or (path.startswith(self.root) and "/site-packages/" not in path)
            if is_own and int(frame["line"]):
                opened.own_line = int(frame["line"])

    def _add_text(self, text: bytes) -> None:
        for found in (self._main, self._printed):
            if found is not None:
                found.add_text(text)

    def _end_messages(self, *, groups_only: bool = False) -> None:
        for found in (self._main, self._printed):
            if found is not None and (found.is_group or not groups_only):
                found.ended = True


def _uncompiled(line: bytes) -> _Traceback:
    """Return the error for a script that is not in its encoding or is nested too deeply.

    The interpreter prints such an error without a traceback."""
    name, _, message = line.decode("utf-8", "replace").partition(": ")
    number = re.search(r" on line ([0-9]{1,9}), but no encoding", message)
    own_line = None if number is None else int(number[1])
    return _Traceback(name=name, message=f"{message[:MESSAGE_CHARACTERS]}\n", own_line=own_line)


def parse_traceback(stderr: str, root: str = "/work/", script: str = "main.py") -> Crash | None:
    """Return the exception that ended the main thread, given all of stderr; None if there is none."""
    parser = TracebackParser(script, root)
    parser.feed(stderr.encode("utf-8", "surrogatepass"))
    return parser.finish()
