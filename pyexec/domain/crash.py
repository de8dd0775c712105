"""The exception that ended a program: its type, message and frames."""

import re

from attrs import frozen

NAME_CHARACTERS = 200
"""Maximum length of an exception's name. A program chooses the name, and indexes and lists show it."""
MESSAGE_CHARACTERS = 4000
"""Maximum length of an exception's message; a longer one ends with an ellipsis."""

_NO_NETWORK = re.compile(
    r"\[Errno (?:101|-3)\]|Network is unreachable|Network unreachable|Temporary failure in name resolution"
)
"""Messages of the C library without a route (ENETUNREACH, EAI_AGAIN), which other libraries include in theirs."""
_END_OF_INPUT = "EOF when reading a line"
_DISK_FULL = re.compile(r"\[Errno 28\]|No space left on device")


@frozen(kw_only=True)
class TracebackFrame:
    """A line of code that an exception passed. The place of a syntax error has no function."""

    file: str
    line: int
    function: str | None = None
    code: str | None = None


@frozen(kw_only=True)
class TracebackEntry:
    """An exception with its frames, outermost first. `relation` says how it came from the entry before: that one is its
    `cause`, or it was raised in the `context` of its handling. `frames_omitted` counts frames in the middle."""

    type: str
    message: str
    relation: str | None = None
    frames: tuple[TracebackFrame, ...] = ()
    frames_omitted: int | None = None


@frozen(kw_only=True)
class Crash:
    """The exception that ended a program: its class name without the module, its message, and the line of the innermost
    frame in the user's own files. `traceback` is None if all this is read from stderr."""

    error_type: str
    error: str
    error_line: int | None
    traceback: tuple[TracebackEntry, ...] | None = None

    @property
    def is_network_error(self) -> bool:
        """True if the message says that there is no network."""
        return _NO_NETWORK.search(self.error) is not None

    @property
    def is_end_of_input(self) -> bool:
        """True if the program has called `input()` at the end of its standard input."""
        return self.error_type == "EOFError" and self.error.startswith(_END_OF_INPUT)

    @property
    def is_disk_full(self) -> bool:
        """True if the message says that a file system is full."""
        return _DISK_FULL.search(self.error) is not None


def cut_message(text: str) -> str:
    """Shorten a message to the maximum length."""
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 1] + "…"
