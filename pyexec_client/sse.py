"""Incremental parser for Server-Sent Events, as the WHATWG HTML standard defines them."""

from __future__ import annotations

from attrs import define, field, frozen

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@frozen
class Message:
    """One message: its event type, its data, and the last ID received so far."""

    event: str
    data: str
    id: str


@define
class Parser:
    """Parse chunks of any size. An incomplete message at the end of the stream is discarded, as the standard says."""

    last_id: str = ""
    _line: list[bytes] = field(factory=list, init=False)
    _after_cr: bool = field(default=False, init=False)
    _first_line: bool = field(default=True, init=False)
    _event: str = field(default="", init=False)
    _data: list[str] = field(factory=list, init=False)

    def feed(self, chunk: bytes) -> list[Message]:
        """Add a chunk and return the messages that it completes."""
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # a CRLF split between two chunks is one line end
        self._after_cr = chunk.endswith(b"\r")
        messages = []
        for piece in chunk.splitlines(keepends=True):
            self._line.append(piece)
            if piece.endswith((b"\n", b"\r")):
                line = b"".join(self._line).rstrip(b"\r\n")
                self._line.clear()
                if (message := self._take(line)) is not None:
                    messages.append(message)
        return messages

    def _take(self, line: bytes) -> Message | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"event":
                self._event = text
            case b"data":
                self._data.append(text)
            case b"id" if "\0" not in text:
                self.last_id = text
        return None

    def _dispatch(self) -> Message | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Message(event, "\n".join(data), self.last_id) if data else None
