"""The events of an execution, in the order in which they happened."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from .display import Display
from .errors import InvalidAnswer
from .json_parser import parse_json
from .result import Result
from .sse import Message

StreamName = Literal["stdout", "stderr"]


@frozen(kw_only=True)
class Lifecycle:
    """A change of an execution's state before its end.

    `type` is submitted, claimed, released, preparing, running, adopted, kill_requested, or a type that only a
    newer server knows. `data` is the whole event as the server sent it.
    """

    id: str
    type: str
    data: Mapping[str, Any] = field(factory=dict)

    @property
    def execution_id(self) -> str | None:
        """Return the execution ID, or None if the event has none. Servers send it with every such event."""
        value = self.data.get("execution_id")
        return value if isinstance(value, str) else None


@frozen(kw_only=True)
class Output:
    """Raw bytes that the program wrote. A chunk may end in the middle of a character."""

    id: str
    stream: StreamName
    data: bytes


@frozen(kw_only=True)
class Setup:
    """Output of the setup: pulling the image and installing packages. It is not output of the program."""

    id: str
    data: bytes


@frozen(kw_only=True)
class Displayed:
    """The program showed something, such as a figure. The result contains it, too."""

    id: str
    display: Display


@frozen(kw_only=True)
class Ended:
    """The last event. `type` is finished, failed or killed; `result` is the result with all output."""

    id: str
    type: str
    result: Result


Event = Lifecycle | Output | Setup | Displayed | Ended

_LAST = frozenset({"finished", "failed", "killed"})


def event_from_message(message: Message) -> Event | None:
    """Convert a message of an event stream to an event.

    Return None for an unknown message that is not a JSON object. Raise InvalidAnswer for a known message with
    invalid data.
    """
    try:
        data = parse_json(message.data)
    except ValueError:
        data = None
    if message.event in _LAST:
        return Ended(id=message.id, type=message.event, result=Result.from_json(data))
    if message.event == "output":
        return _output(message, data)
    if message.event == "setup":
        return Setup(id=message.id, data=_bytes(message, data))
    if message.event == "display":
        return Displayed(id=message.id, display=_display(message, data))
    return Lifecycle(id=message.id, type=message.event, data=data) if isinstance(data, dict) else None


def _output(message: Message, data: object) -> Output:
    stream = data.get("stream") if isinstance(data, dict) else None
    if stream not in ("stdout", "stderr"):
        raise InvalidAnswer(f"invalid output event from the server: {message.data[:200]!r}")
    return Output(id=message.id, stream=stream, data=_bytes(message, data))


def _display(message: Message, data: object) -> Display:
    try:
        if isinstance(data, dict):
            return Display.from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidAnswer(f"invalid display event from the server: {error!r}") from error
    raise InvalidAnswer(f"invalid display event from the server: {message.data[:200]!r}")


def _bytes(message: Message, data: object) -> bytes:
    try:
        if isinstance(data, dict):
            return base64.b64decode(data["data"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidAnswer(f"invalid {message.event} event from the server: {error!r}") from error
    raise InvalidAnswer(f"invalid {message.event} event from the server: {message.data[:200]!r}")
