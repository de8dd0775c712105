"""Split stderr into lines for the traceback parser: without colours, and with the script's name on one line."""

import re
from collections.abc import Iterator, Sequence

LINE_BYTES = 64 * 1024
"""How much of a line is kept: a name, and a message of the maximum length at four bytes a character."""
LINE_END_BYTES = 64
"""How much of the end of a longer line is kept: enough for the heading of a traceback after a progress bar."""
_COLOR = re.compile(rb"\x1b\[[0-9;:]*m")
"""A sequence that sets a colour (SGR). Python 3.13 and newer print them if FORCE_COLOR or PYTHON_COLORS is set."""


def one_line(name: str) -> str:
    """Return the name of a file on one line: each line break becomes a backslash and an n."""
    return name.replace("\n", "\\n")


class StderrLines:
    """Joins chunks of any size into whole lines. Of a line that spans chunks, the first `LINE_BYTES` and the last
    `LINE_END_BYTES` are kept.

    `names` are the forms in which the interpreter prints the script's name, such as with and without its directory."""

    def __init__(self, names: Sequence[str]) -> None:
        self._line = bytearray()
        self._line_end = b""
        """The end of the line, if it is longer than `LINE_BYTES`."""
        self._held = b""
        """The end of the last chunk, if it may be the beginning of a name."""
        self._split_names = [
            (f'"{name}"'.encode("utf-8", "replace"), f'"{one_line(name)}"'.encode("utf-8", "replace"))
            for name in names
            if "\n" in name
        ]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that the next chunk completes, one or more at a time. Read all before the next call."""
        if self._split_names:
            data = self._join_names(data)
        end = data.rfind(b"\n") + 1
        if end:
            first = data.index(b"\n") + 1
            self._add_to_line(data[:first])
            line = bytes(self._line) + self._line_end
            self._line.clear()
            self._line_end = b""
            yield _without_colors(line if line.endswith(b"\n") else line + b"\n")
            if first < end:
                yield _without_colors(data[first:end])
        self._add_to_line(data[end:])

    def finish(self) -> Iterator[bytes]:
        """Yield the rest as lines. Call this once, after the last chunk."""
        held, self._held, self._split_names = self._held, b"", []
        yield from self.feed(held)
        if self._line:
            yield from self.feed(b"\n")

    def _add_to_line(self, data: bytes) -> None:
        missing = LINE_BYTES - len(self._line)
        self._line += data[:missing]
        if len(data) > missing:
            self._line_end = (self._line_end + data[missing:])[-LINE_END_BYTES:]

    def _join_names(self, chunk: bytes) -> bytes:
        """Return the text up to the end of the chunk, or up to what may be the beginning of a name; hold back the rest.

        Each name in it is on one line."""
        text = self._held + chunk
        for printed, joined in self._split_names:
            text = text.replace(printed, joined)
        longest = max(len(printed) for printed, _ in self._split_names)
        at = text.find(b'"', max(0, len(text) - longest))
        while at >= 0 and not any(printed.startswith(text[at:]) for printed, _ in self._split_names):
            at = text.find(b'"', at + 1)
        end = len(text) if at < 0 else at
        self._held = text[end:]
        return text[:end]


def _without_colors(lines: bytes) -> bytes:
    return _COLOR.sub(b"", lines) if b"\x1b[" in lines else lines
