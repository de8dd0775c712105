"""Server-Sent Events (WHATWG HTML §9.2): stream an execution's events and output as they happen."""

import binascii
import json
import logging
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

import anyio
import anyio.lowlevel
from aiohttp import web
from attrs import evolve

from pyexec.codec import timestamp
from pyexec.domain.event_stream import EndItem, Item, LifecycleItem, OutputItem, Position
from pyexec.domain.events import Running
from pyexec.domain.output_log import Stream
from pyexec.errors import ExecutorError, InvalidRequest, quote
from pyexec.web.context import public
from pyexec.web.middleware import CountedResponse, mark_complete
from pyexec.web.streaming import cooperative, document_pieces, result_pieces

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
_EVENT_ID = re.compile(r"(?P<seq>[0-9]+)\.(?P<offset>[0-9]+)")
_EVENT_ID_LENGTH_MAX = 31


def parse_position(last_event_id: str | None) -> Position:
    """Parse a `Last-Event-ID` header, `<seq>.<output offset>`; without one, return the start of the stream."""
    if not last_event_id:
        return Position()
    position = _EVENT_ID.fullmatch(last_event_id)
    if position is None or len(last_event_id) > _EVENT_ID_LENGTH_MAX:
        raise InvalidRequest(
            f"Last-Event-ID must have the form <seq>.<output offset>, not {quote(last_event_id)}",
            field="Last-Event-ID",
        )
    return Position(seq=int(position["seq"]), offset=int(position["offset"]))


async def send_events(
    request: web.Request, execution_id: str, items: AsyncGenerator[Sequence[Item], None]
) -> web.StreamResponse:
    """Send batches of items up to the last one, which carries the result. Close `items`.

    If the items cannot be read to the end, the connection is aborted, and the client resumes the stream."""
    response = CountedResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    if request.method == "HEAD":
        await items.aclose()
        return response
    failure: ConnectionError | ExecutorError | None = None
    write_lock = anyio.Lock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep_alive, response, write_lock, name=f"keep alive {execution_id}")
        try:
            async with aclosing(items):
                async for batch in items:
                    async with write_lock:
                        await _write_batch(request, response, execution_id, batch)
                    if isinstance(batch[-1], EndItem):
                        mark_complete(request, response)
        except (ConnectionError, ExecutorError) as error:
            failure = error.with_traceback(None)  # its frames hold the output
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    await response.write_eof()
    return response


async def _write_batch(
    request: web.Request, response: web.StreamResponse, execution_id: str, batch: Sequence[Item]
) -> None:
    """Write the events of a batch, and let other tasks run. The last event can be large, and is sent in pieces."""
    async for data in cooperative(_batch_pieces(request, execution_id, batch)):
        await response.write(data)
    await anyio.lowlevel.checkpoint()


def _batch_pieces(request: web.Request, execution_id: str, batch: Sequence[Item]) -> Iterator[bytes]:
    for item in batch:
        if isinstance(item, EndItem):
            yield from _end_pieces(evolve(item, result=public(request, item.result)))
        elif isinstance(item, OutputItem) and item.stream is Stream.DISPLAY:
            yield from _display_pieces(item)
        else:
            yield encode(execution_id, item)


def _end_pieces(item: EndItem) -> Iterator[bytes]:
    position = f"{item.position.seq}.{item.position.offset}"
    yield f"event: {item.event.name}\nid: {position}\ndata: ".encode()
    yield from result_pieces(item.result, item.output_log)
    yield b"\n\n"


def _display_pieces(item: OutputItem) -> Iterator[bytes]:
    yield f"event: display\nid: {item.position.seq}.{item.position.offset}\ndata: ".encode()
    yield from document_pieces(item.data)
    yield b"\n\n"


def encode(execution_id: str, item: Item) -> bytes:
    """Encode one item as an event of the stream."""
    match item:
        case LifecycleItem():
            name = item.event.name
            data = {
                "execution_id": execution_id,
                "seq": item.position.seq,
                "type": name,
                "at": timestamp(item.event.at),
            }
            if isinstance(item.event, Running) and item.event.image is not None:
                data["image"] = item.event.image
            text = json.dumps(data)
        case OutputItem(stream=Stream.SETUP):
            name, text = "setup", f'{{"data": "{_base64(item.data)}"}}'
        case OutputItem(stream=Stream.DISPLAY):
            return b"".join(_display_pieces(item))
        case OutputItem():
            name, text = "output", f'{{"stream": "{item.stream}", "data": "{_base64(item.data)}"}}'
        case EndItem():
            return b"".join(_end_pieces(item))
    position = f"{item.position.seq}.{item.position.offset}"
    return f"event: {name}\nid: {position}\ndata: {text}\n\n".encode()


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


async def _keep_alive(response: web.StreamResponse, write_lock: anyio.Lock) -> None:
    """Send comments, so that proxies do not close the connection during a long run without output."""
    try:
        while True:
            await anyio.sleep(KEEP_ALIVE_SECONDS)
            async with write_lock:  # not inside an event
                await response.write(b": keep-alive\n\n")
    except ConnectionError as error:
        logger.info("client disconnected from an event stream: %s", error)
