"""Server-Sent Events (WHATWG HTML §9.2): stream an execution's events and output as they happen."""

import base64
import json
import logging
from collections.abc import AsyncIterator

import anyio
from aiohttp import web

from pyexec.codec import event_name, timestamp, to_json
from pyexec.domain.event_stream import EndItem, Item, LifecycleItem, OutputItem, Position
from pyexec.domain.events import Running
from pyexec.domain.output_log import Stream
from pyexec.errors import ExecutorError, InvalidRequest, quote
from pyexec.web.middleware import mark_complete

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
_EVENT_ID_LENGTH_MAX = 31


def parse_position(last_event_id: str | None) -> Position:
    """Parse a `Last-Event-ID` header, `<seq>.<output offset>`; without one, return the start of the stream."""
    if not last_event_id:
        return Position()
    seq, dot, offset = last_event_id.partition(".")
    is_valid = dot and seq.isdecimal() and offset.isdecimal() and len(last_event_id) <= _EVENT_ID_LENGTH_MAX
    if not is_valid:
        raise InvalidRequest(
            f"Last-Event-ID must have the form <seq>.<output offset>, not {quote(last_event_id)}",
            field="Last-Event-ID",
        )
    return Position(seq=int(seq), offset=int(offset))


def accepts_events(request: web.Request) -> bool:
    """Return True if the client asks for an event stream."""
    return "text/event-stream" in request.headers.get("Accept", "")


async def send_events(
    request: web.Request, execution_id: str, items: AsyncIterator[Item]
) -> web.StreamResponse:
    """Send items up to the last one, which carries the result.

    If the items cannot be read to the end, the stream ends without a result, and the client resumes it."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    disconnected: ConnectionError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep_alive, response, name=f"keep alive {execution_id}")
        try:
            async for item in items:
                await response.write(encode(execution_id, item))
                if isinstance(item, EndItem):
                    mark_complete(request, response)
        except ConnectionError as error:
            disconnected = error
        except ExecutorError as error:
            logger.warning(
                "event stream of %s ends early; the client is expected to resume it: %s", execution_id, error
            )
        tasks.cancel_scope.cancel()
    if disconnected is not None:
        raise disconnected
    await response.write_eof()
    return response


def encode(execution_id: str, item: Item) -> bytes:
    """Encode one item as an event of the stream."""
    match item:
        case LifecycleItem():
            name = event_name(item.event)
            data = {
                "execution_id": execution_id,
                "seq": item.position.seq,
                "type": name,
                "at": timestamp(item.event.at),
            }
            if isinstance(item.event, Running) and item.event.image is not None:
                data["image"] = item.event.image
        case OutputItem(stream=Stream.SETUP):
            name = "setup"
            data = {"data": base64.b64encode(item.data).decode()}
        case OutputItem():
            name = "output"
            data = {"stream": item.stream.value, "data": base64.b64encode(item.data).decode()}
        case EndItem():
            name = event_name(item.event)
            data = to_json(item.result)
    position = f"{item.position.seq}.{item.position.offset}"
    return f"event: {name}\nid: {position}\ndata: {json.dumps(data)}\n\n".encode()


async def _keep_alive(response: web.StreamResponse) -> None:
    """Send comments, so that proxies do not close the connection during a long run without output."""
    try:
        while True:
            await anyio.sleep(KEEP_ALIVE_SECONDS)
            await response.write(b": keep-alive\n\n")
    except ConnectionError as error:
        logger.info("client disconnected from an event stream: %s", error)
