"""Test how the client parses responses: results, events and errors."""

import base64
import json
import pickle
from datetime import UTC, datetime

import pytest

from pyexec_client import errors
from pyexec_client.cluster import Cluster
from pyexec_client.errors import InvalidAnswer, error_from_response
from pyexec_client.events import Ended, Lifecycle, Output, event_from_message
from pyexec_client.result import OutputFile, Result, Status, Timings, Truncated, Usage
from pyexec_client.sse import Message
from pyexec_client.timeline import Timeline

FULL = {
    "execution_id": "exe_0",
    "status": "completed",
    "stdout": "42\n",
    "stderr": "",
    "exit_code": 0,
    "error": "boom",
    "error_type": "ValueError",
    "error_line": 3,
    "result": "42",
    "created_at": "2026-01-01T00:00:00.000000Z",
    "started_at": "2026-01-01T00:00:00.001000Z",
    "finished_at": "2026-01-01T00:00:00.012000Z",
    "duration_ms": 12,
    "timings_ms": {"queue": 1, "setup": 0, "run": 11, "newer": 5},
    "usage": {"cpu_seconds": 0.01, "peak_memory_bytes": 9000000},
    "truncated": {"stdout": False, "stderr": True},
    "files": [{"path": "out.csv", "size": 10}],
    "files_truncated": True,
    "of_a_newer_server": {"x": 1},
}


def test_all_fields_of_a_result():
    result = Result.from_json(FULL)
    assert result.status is Status.COMPLETED
    assert result.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert result.timings_ms == Timings(queue=1, setup=0, run=11)
    assert result.usage == Usage(cpu_seconds=0.01, peak_memory_bytes=9000000)
    assert result.truncated == Truncated(stdout=False, stderr=True)
    assert result.files == (OutputFile(path="out.csv", size=10),)
    plain = ("stdout", "stderr", "exit_code", "error", "error_type", "error_line", "result", "duration_ms")
    assert {name: getattr(result, name) for name in plain} == {name: FULL[name] for name in plain}
    assert result.files_truncated
    assert result.ended
    assert result.ok
    assert result.raw["of_a_newer_server"] == {"x": 1}


def test_missing_fields_are_none():
    result = Result.from_json({"execution_id": "exe_0", "status": "pending"})
    assert not result.ended
    assert not result.ok
    assert (result.exit_code, result.error, result.usage, result.files) == (None, None, None, ())


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "x",
        {},
        {"execution_id": "exe_0"},
        FULL | {"status": "odd"},
        FULL | {"created_at": "noon"},
        FULL | {"files": [{}]},
        FULL | {"usage": 3},
    ],
)
def test_a_response_that_is_not_a_result_is_an_error(answer):
    with pytest.raises(InvalidAnswer, match="not a result"):
        Result.from_json(answer)


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"replicas": [{}], "queue": []}, {"id": "e"}])
def test_a_response_that_is_no_state_or_timeline_is_an_error(answer):
    with pytest.raises(InvalidAnswer, match="not the state of a cluster"):
        Cluster.from_json(answer)
    with pytest.raises(InvalidAnswer, match="not a timeline"):
        Timeline.from_json(answer)


def test_output_is_raw_bytes():
    data = json.dumps({"stream": "stderr", "data": base64.b64encode(b"\xff\n").decode()})
    assert event_from_message(Message("output", data, "3.2")) == Output(
        id="3.2", stream="stderr", data=b"\xff\n"
    )


def test_a_lifecycle_event_has_the_execution_id():
    event = event_from_message(
        Message("running", '{"execution_id": "exe_0", "seq": 2, "type": "running"}', "2.0")
    )
    assert isinstance(event, Lifecycle)
    assert (event.type, event.execution_id, event.data["seq"]) == ("running", "exe_0", 2)


@pytest.mark.parametrize("kind", ["finished", "failed", "killed"])
def test_the_last_event_has_the_result(kind):
    event = event_from_message(Message(kind, json.dumps(FULL), "4.3"))
    assert event == Ended(id="4.3", type=kind, result=Result.from_json(FULL))


@pytest.mark.parametrize("data", ["not json", "3", '"text"'])
def test_an_unknown_event_is_skipped(data):
    assert event_from_message(Message("invented_later", data, "")) is None


@pytest.mark.parametrize(
    "data", ["x", "{}", '{"stream": "stdin", "data": ""}', '{"stream": "stdout", "data": "?"}']
)
def test_an_invalid_output_event_is_an_error(data):
    with pytest.raises(InvalidAnswer, match="output event"):
        event_from_message(Message("output", data, ""))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthorized),
        (403, errors.Unauthorized),
        (404, errors.NotFound),
        (405, errors.ApiError),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (415, errors.InvalidRequest),
        (429, errors.QueueFull),
        (500, errors.ServerError),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (302, errors.ApiError),
    ],
)
def test_error_class_of_each_status(status, kind):
    error = error_from_response(
        status, {}, b'{"error": "no", "code": "some_code", "field": "config.memory_mb"}'
    )
    assert type(error) is kind
    assert (error.status, error.message, error.code, error.field) == (
        status,
        "no",
        "some_code",
        "config.memory_mb",
    )
    assert "config.memory_mb" in str(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "HTTP 502"),
        (b"<html>Bad Gateway</html>\nmore", "HTTP 502: <html>Bad Gateway</html>"),
        (b"[1]", "HTTP 502: [1]"),
        (b'{"error": 3}', 'HTTP 502: {"error": 3}'),
        (b"\xff\xfe", "HTTP 502: \ufffd\ufffd"),
    ],
)
def test_an_error_response_that_is_not_json(body, message):
    error = error_from_response(502, {}, body)
    assert str(error) == message
    assert error.body == body
    assert error.code == "unavailable"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_retry_after_is_in_seconds(header, seconds):
    headers = {} if header is None else {"Retry-After": header}
    assert error_from_response(429, headers, b"").retry_after == seconds


@pytest.mark.parametrize("digits", [25, 5000])
def test_a_number_of_any_length_does_not_hide_a_result(digits: int) -> None:
    ended = json.dumps({**FULL, "error_line": 0}).replace('"error_line": 0', f'"error_line": {"1" * digits}')
    event = event_from_message(Message(id="1", event="finished", data=ended))
    assert isinstance(event, Ended)
    assert event.result.stdout == "42\n"


@pytest.mark.parametrize(
    "error",
    [
        error_from_response(
            429, {"Retry-After": "7"}, b'{"error": "full", "code": "queue_full", "field": "f"}'
        ),
        errors.ConnectionFailed("http://localhost", "refused"),
        InvalidAnswer("no"),
    ],
)
def test_errors_can_be_pickled(error: errors.PyexecError) -> None:
    """A process pool sends the error of a worker; if it cannot read it, the pool waits forever or breaks."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
