"""Server-Sent Events (WHATWG HTML §9.2): an execution's events and output as they come."""

import base64
import json
import logging
from collections.abc import AsyncIterator

import anyio
from aiohttp import web
from attrs import field, frozen

from pyexec.codec import TAGS, event_name, timestamp, to_json
from pyexec.domain.event_stream import EndItem, Item, LifecycleItem, OutputItem, Position
from pyexec.domain.events import Running
from pyexec.domain.field_docs import described
from pyexec.domain.output_log import Stream
from pyexec.errors import ExecutorError, InvalidRequest
from pyexec.web.middleware.access import note_answered

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0


POSITION_PATTERN = r"^[0-9]+\.[0-9]+$"


@frozen(kw_only=True)
class Message:
    """One of the events that a stream consists of."""

    event: str = field(
        metadata=described(
            f"What happened ({', '.join(tag.partition('.')[0] for tag in TAGS)}), or setup and output for what was "
            "printed. finished, failed and killed are the last.",
            "output",
        )
    )
    id: str = field(metadata=described("Where to go on, as Last-Event-ID.", "3.3", pattern=POSITION_PATTERN))
    data: str = field(
        metadata=described(
            "JSON: of what happened when it did, of what was printed the bytes as base64 and their stream, of the "
            "last event the result.",
            '{"stream": "stdout", "data": "NDIK"}',
        )
    )


def parse_position(last_event_id: str | None) -> Position:
    """The position that a `Last-Event-ID` header gives, `<seq>.<output offset>`; the start when there is none."""
    if not last_event_id:
        return Position()
    seq, dot, offset = last_event_id.partition(".")
    if not (dot and seq.isdecimal() and offset.isdecimal() and len(last_event_id) < 32):
        raise InvalidRequest(
            f"Last-Event-ID {last_event_id[:60]!r} is none of ours; it is <seq>.<output offset>",
            field="Last-Event-ID",
        )
    return Position(seq=int(seq), offset=int(offset))


def wants_events(request: web.Request) -> bool:
    """Whether the caller asked for an event stream."""
    return "text/event-stream" in request.headers.get("Accept", "")


async def send_events(
    request: web.Request, execution_id: str, items: AsyncIterator[Item]
) -> web.StreamResponse:
    """Sends items until the last one, which carries the Result. A stream that ends without it is to be resumed."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    broken: ConnectionError | None = None
    async with anyio.create_task_group() as beside:
        beside.start_soon(_keep_alive, response, name=f"keep alive {execution_id}")
        try:
            async for item in items:
                await response.write(encode(execution_id, item))
                if isinstance(item, EndItem):
                    note_answered(request, response)
        except ConnectionError as error:
            broken = error
        except ExecutorError as error:
            logger.warning(
                "the events of %s end early, their reader will come again: %s", execution_id, error
            )
        beside.cancel_scope.cancel()
    if broken is not None:
        raise broken
    await response.write_eof()
    return response


def encode(execution_id: str, item: Item) -> bytes:
    """One item as an event of the stream."""
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
    """Comments, so that nobody between takes the silence of a long run for its end."""
    try:
        while True:
            await anyio.sleep(KEEP_ALIVE_SECONDS)
            await response.write(b": keep-alive\n\n")
    except ConnectionError as error:
        logger.info("a reader of events has gone: %s", error)
