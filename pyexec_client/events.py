"""What happens to an execution, one object per thing, in the order it happened."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from .errors import InvalidAnswer
from .result import Result
from .sse import Message

StreamName = Literal["stdout", "stderr"]


@frozen(kw_only=True)
class Lifecycle:
    """A step on its way: `type` is submitted, claimed, released, preparing, running, kill_requested,
    or a word that a newer server uses. `data` is all that the server says about it."""

    id: str
    type: str
    data: Mapping[str, Any] = field(factory=dict)

    @property
    def execution_id(self) -> str | None:
        """The execution's id, where the server sent it along: it does with every step."""
        value = self.data.get("execution_id")
        return value if isinstance(value, str) else None


@frozen(kw_only=True)
class Output:
    """Bytes that the program wrote, as they were. A chunk may end in the middle of a character."""

    id: str
    stream: StreamName
    data: bytes


@frozen(kw_only=True)
class Setup:
    """What is said while an image is pulled, or something is installed. The program prints none of it."""

    id: str
    data: bytes


@frozen(kw_only=True)
class Ended:
    """The last event: `type` is finished, failed or killed, `result` the outcome with all output."""

    id: str
    type: str
    result: Result


Event = Lifecycle | Output | Setup | Ended

_LAST = frozenset({"finished", "failed", "killed"})


def event_from_message(message: Message) -> Event | None:
    """The event a stream's message stands for; None for one of a kind this client does not know.

    Raises InvalidAnswer for a message of a known kind that cannot be read.
    """
    try:
        data = json.loads(message.data)
    except ValueError:
        data = None
    if message.event in _LAST:
        return Ended(id=message.id, type=message.event, result=Result.from_json(data))
    if message.event == "output":
        return _output(message, data)
    if message.event == "setup":
        return Setup(id=message.id, data=_bytes(message, data))
    return Lifecycle(id=message.id, type=message.event, data=data) if isinstance(data, dict) else None


def _output(message: Message, data: object) -> Output:
    stream = data.get("stream") if isinstance(data, dict) else None
    if stream not in ("stdout", "stderr"):
        raise InvalidAnswer(f"the server sent an output event that cannot be read: {message.data[:200]!r}")
    return Output(id=message.id, stream=stream, data=_bytes(message, data))


def _bytes(message: Message, data: object) -> bytes:
    try:
        if isinstance(data, dict):
            return base64.b64decode(data["data"], validate=True)
    except (KeyError, TypeError, ValueError) as problem:
        raise InvalidAnswer(
            f"the server sent a {message.event} event that cannot be read: {problem!r}"
        ) from problem
    raise InvalidAnswer(
        f"the server sent a {message.event} event that cannot be read: {message.data[:200]!r}"
    )
