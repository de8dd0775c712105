"""Examples of whole requests and responses. Responses are built from the types that real responses are built from."""

from datetime import UTC, datetime
from typing import Any

from pyexec.codec import to_json
from pyexec.domain.event_stream import EndItem, LifecycleItem, OutputItem, Position
from pyexec.domain.events import Finished, Running, Usage
from pyexec.domain.execution import Status
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import Result, Timings
from pyexec.domain.session_request import SessionRequest
from pyexec.domain.spec import EvalRequest, Metadata
from pyexec.web.openapi.field_docs import EXAMPLE_ID
from pyexec.web.schemas import Problem
from pyexec.web.sse import encode

_CREATED, _STARTED, _FINISHED = (
    datetime(2026, 1, 1, microsecond=microsecond, tzinfo=UTC) for microsecond in (0, 1000, 12000)
)
_RESULT = Result(
    execution_id=EXAMPLE_ID,
    status=Status.COMPLETED,
    exit_code=0,
    created_at=_CREATED,
    started_at=_STARTED,
    finished_at=_FINISHED,
    duration_ms=12,
    timings_ms=Timings(queue=1, setup=0, run=11),
    usage=Usage(cpu_seconds=0.01, peak_memory_bytes=9_000_000),
    stdout="42\n",
)
_OUTPUT = OutputLog()
_OUTPUT.append(Stream.STDOUT, b"42\n")
_ITEMS = (
    LifecycleItem(position=Position(seq=3), event=Running(at=_STARTED, nonce="", engine="", container="")),
    OutputItem(position=Position(seq=3, offset=3), stream=Stream.STDOUT, data=b"42\n"),
    EndItem(
        position=Position(seq=4, offset=3),
        event=Finished(at=_FINISHED, nonce="", exit_code=0),
        result=_RESULT,
        output_log=_OUTPUT,
    ),
)
TYPE_EXAMPLES: dict[type, list[Any]] = {
    EvalRequest: [
        {"code": "6 * 7", "eval_last_expr": True},
        {
            "files": [
                {"name": "main.py", "content": "import helper\nprint(helper.WORD)"},
                {"name": "helper.py", "content": "WORD = 'files'"},
            ],
            "config": {"timeout_seconds": 10},
        },
    ],
    Metadata: [{"script_args": ["--fast"], "config": {"timeout_seconds": 10, "memory_mb": 256}}],
    SessionRequest: [{"config": {"timeout_seconds": 60, "memory_mb": 256}}],
    Problem: [
        to_json(
            Problem(
                error="config.memory_mb must be at least 16 and at most 32768, not 1",
                code="invalid_request",
                field="config.memory_mb",
            )
        )
    ],
    Result: [to_json(_RESULT)],
}
"""Examples by type, the best one first: Swagger UI fills it in."""

MEDIA_TYPE_EXAMPLES: dict[str, Any] = {
    "text/event-stream": b"".join(encode(EXAMPLE_ID, item) for item in _ITEMS).decode(),
    "text/plain": "42\n",
}
