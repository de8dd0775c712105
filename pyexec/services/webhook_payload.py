"""The body of a webhook: the result of an execution, bounded (docs/webhooks.md)."""

import codecs
import json
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from pyexec.codec import timestamp, to_json
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import result_without_output, summarize

EVENT_TYPE = "execution.completed"
STREAM_BYTES_MAX = 16 * 1024
"""Maximum size of `stdout` and of `stderr` in a webhook."""
BODY_BYTES_MAX = 64 * 1024


def webhook_body(execution: Execution, output_log: OutputLog, *, shows_tenant: bool) -> bytes:
    """Return the body of the webhook of an ended execution, as JSON.

    `left_out` names the fields of the result that are cut or missing. If the body would be too large, it has the
    fields of a list of executions, with long texts cut."""
    if execution.terminal is None:
        raise ValueError(f"{execution.id} has not ended")
    result = result_without_output(execution, output_log)
    left_out = [stream for stream in (Stream.STDOUT, Stream.STDERR) if _is_cut(output_log, stream)]
    if output_log.size_of(Stream.DISPLAY):
        left_out.append(Stream.DISPLAY)
    data = to_json(
        evolve(
            result,
            tenant=result.tenant if shows_tenant else None,
            stdout=_beginning(output_log, Stream.STDOUT),
            stderr=_beginning(output_log, Stream.STDERR),
            displays=None,
        )
    )
    names = ["displays" if stream is Stream.DISPLAY else str(stream) for stream in left_out]
    body = _encode(execution, data, names)
    if len(body) <= BODY_BYTES_MAX:
        return body
    summary = summarize(execution)
    short = to_json(summary if shows_tenant else evolve(summary, tenant=None))
    return _encode(
        execution, short, sorted({*names, *(name for name in data if data[name] != short.get(name))})
    )


def _encode(execution: Execution, data: Mapping[str, Any], left_out: list[str]) -> bytes:
    ended_at = execution.terminal.at if execution.terminal is not None else execution.created_at
    body: dict[str, Any] = {"type": EVENT_TYPE, "timestamp": timestamp(ended_at), "data": data}
    if left_out:
        body["left_out"] = left_out
    return json.dumps(body).encode()


def _is_cut(output_log: OutputLog, stream: Stream) -> bool:
    return output_log.size_of(stream) > STREAM_BYTES_MAX


def _beginning(output_log: OutputLog, stream: Stream) -> str:
    """Return the beginning of a stream as text. A character that the limit would split is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(output_log.bytes_of(stream)[:STREAM_BYTES_MAX])
    return text if _is_cut(output_log, stream) else text + decoder.decode(b"", final=True)
