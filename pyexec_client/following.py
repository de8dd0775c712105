"""An execution's events, over as many connections as it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio

from . import requests
from .errors import ConnectionFailed, Unavailable
from .events import Ended, Event, Lifecycle, event_from_message
from .retry import NEVER, Retry
from .sse import Parser
from .transport import Answer, Transport


async def follow(
    http: Transport,
    request: requests.Request,
    resume: Retry,
    *,
    execution_id: str | None = None,
    last_id: str | None = None,
) -> AsyncGenerator[Event, None]:
    """The events that `request` streams, an `Ended` last.

    Where a stream that had begun breaks off it goes on from the last event seen, as patiently as `resume`
    says (each event that arrives starts the patience anew). Raises what the first request raises, and
    ConnectionFailed where the connection cannot be made again or the execution's id is not known yet.
    """
    pauses = NEVER.pauses()
    while True:
        try:
            async with http.open(request) as answer, aclosing(_read(answer)) as events:
                async for event in events:
                    last_id = event.id or last_id
                    if isinstance(event, Lifecycle):
                        execution_id = event.execution_id or execution_id
                    pauses = resume.pauses()
                    yield event
                    if isinstance(event, Ended):
                        return
        except (ConnectionFailed, Unavailable):
            pause = next(pauses, None)
            if execution_id is None or pause is None:
                raise
            await anyio.sleep(pause)
            request = requests.events(execution_id, last_id, NEVER)


async def _read(answer: Answer) -> AsyncGenerator[Event, None]:
    """The events of one connection; ConnectionFailed if it ends before the execution does."""
    parser = Parser()
    async for chunk in answer.chunks():
        for message in parser.feed(chunk):
            event = event_from_message(message)
            if event is not None:
                yield event
    raise ConnectionFailed(answer.url, "the event stream ended before the execution did")
