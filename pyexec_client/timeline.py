"""The timeline of an execution, as the server returns it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from attrs import field, frozen

from .errors import reading


@frozen(kw_only=True)
class TimelineEvent:
    """An event of an execution. `replica` was responsible for the execution then. Fields that do not apply are None.

    - `image`: the name of the image that was asked for, or the digest of the one that runs
    - `reason`: why the execution returned to the queue
    """

    type: str
    at: datetime
    replica: str | None = None
    image: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    error_type: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Convert the JSON object of a response."""
        return cls(
            type=data["type"],
            at=datetime.fromisoformat(data["at"]),
            replica=data.get("replica"),
            image=data.get("image"),
            reason=data.get("reason"),
            exit_code=data.get("exit_code"),
            error_type=data.get("error_type"),
        )


@frozen(kw_only=True)
class TimelinePhase:
    """A phase of an execution, and its duration; for a phase in progress, the duration so far."""

    name: str
    seconds: float


@frozen(kw_only=True)
class Timeline:
    """The events and the phases of an execution, in order.

    Newer servers may send other types of events and other names of phases. `raw` is the JSON object of the response.
    """

    id: str
    events: tuple[TimelineEvent, ...]
    phases: tuple[TimelinePhase, ...]
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Convert the JSON object of a response. Raise InvalidAnswer if it is not a timeline."""
        with reading("a timeline", data):
            return cls(
                id=data["id"],
                events=tuple(TimelineEvent.from_json(each) for each in data["events"]),
                phases=tuple(TimelinePhase(name=p["name"], seconds=p["seconds"]) for p in data["phases"]),
                raw=data,
            )
