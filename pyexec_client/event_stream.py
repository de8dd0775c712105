"""Read an execution's event stream, and reconnect when the connection breaks."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio

from . import requests
from .errors import ConnectionFailed, InvalidAnswer, Unavailable
from .events import Ended, Event, Lifecycle, event_from_message
from .result import Result
from .retry import NO_RETRY, Retry
from .sse import Parser
from .transport import Response, Transport

_NO_MORE_EVENTS = 204

OnEvent = Callable[[Event], Awaitable[None] | None]


async def stream_events(
    http: Transport,
    request: requests.Request,
    resume: Retry,
    *,
    execution_id: str | None = None,
    last_id: str | None = None,
) -> AsyncGenerator[Event, None]:
    """Yield the events that `request` streams; the last one is `Ended`.

    If the stream breaks after its first event, reconnect and continue after the last event received. `resume`
    limits the attempts; every event received resets the count. Raise the error of the first request unchanged.
    Raise ConnectionFailed if reconnecting fails, or if the execution ID is still unknown, and InvalidAnswer if the
    server has no more events although `Ended` is missing. Yield nothing if `last_id` is the ID of the last event.
    """
    pauses, after = NO_RETRY.pauses(), last_id
    while True:
        try:
            async with http.open(request) as response, aclosing(_read_events(response)) as events:
                if response.status == _NO_MORE_EVENTS and "Last-Event-ID" in request.headers:
                    if after == last_id:
                        return
                    raise InvalidAnswer("the server sent no more events, but the execution has not ended")
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
            request = requests.events(execution_id, last_id, NO_RETRY)


async def last_result(events: AsyncGenerator[Event, None], on_event: OnEvent | None) -> Result:
    """Read the events to the last one, and return its result. Call `on_event` with each event as it arrives."""
    async with aclosing(events):
        async for event in events:
            if on_event is not None and inspect.isawaitable(pending := on_event(event)):
                await pending
            if isinstance(event, Ended):
                return event.result
    raise AssertionError("an event stream ends with Ended or raises")


async def _read_events(response: Response) -> AsyncGenerator[Event, None]:
    """Yield the events of one connection. Raise ConnectionFailed if it closes before the execution ends."""
    if response.content_type != "text/event-stream":
        raise response.invalid(f"'{response.content_type}' instead of an event stream")
    parser = Parser()
    async for chunk in response.chunks():
        for message in parser.feed(chunk):
            event = event_from_message(message)
            if event is not None:
                yield event
    raise ConnectionFailed(response.url, "the event stream ended before the execution did")
