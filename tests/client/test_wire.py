"""Test the Python client with the wire format that it shares with the server and the Go client."""

import base64
import json
from datetime import datetime
from urllib.parse import quote

import attrs
import pytest

from pyexec_cli import exit_codes
from pyexec_client import arguments, requests, tar
from pyexec_client.cluster import Cluster
from pyexec_client.display import Display
from pyexec_client.errors import error_from_response
from pyexec_client.events import Displayed, Ended, Lifecycle, Output, Setup, event_from_message
from pyexec_client.ignore import IgnoreRules
from pyexec_client.options import metadata
from pyexec_client.result import Result
from pyexec_client.retry import NO_RETRY
from pyexec_client.sse import Message, Parser
from pyexec_client.timeline import Timeline
from pyexec_client.transport import Transport
from tests.support.paths import WIRE

KINDS = {
    "invalid_request": "InvalidRequest",
    "too_large": "TooLarge",
    "unauthorized": "Unauthorized",
    "not_found": "NotFound",
    "conflict": "Conflict",
    "session_closed": "SessionClosed",
    "queue_full": "QueueFull",
    "unavailable": "Unavailable",
    "server_error": "ServerError",
    "error": "ApiError",
}


def golden(*names: str):
    cases = [case for name in names for case in json.loads((WIRE / f"{name}.json").read_text())]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.get("name", ""))


@golden("metadata")
def test_metadata(case):
    assert metadata(case["options"]) == case["metadata"]


@golden("sources")
def test_sources(case):
    assert tar.member(case["file"], case["text"]).content == case["sent"].encode()


@golden("single_files")
def test_single_files(case, tmp_path):
    path = tmp_path / case["file"]
    path.write_text("print()")
    request = requests.submit(path, {}, "key", NO_RETRY)
    assert request.metadata.get("entrypoint") == case["entrypoint"]
    assert requests.submit(path, {"entrypoint": "x"}, "key", NO_RETRY).metadata["entrypoint"] == "x"


@golden("arguments")
def test_arguments(case):
    check = {
        "base_url": Transport,
        "execution_id": arguments.execution_id,
        "session_id": arguments.session_id,
        "file_path": lambda path: quote(arguments.file_path(path)),
    }[case["kind"]]
    if "error" not in case:
        assert check(case["value"]) == case["escaped"]
        return
    with pytest.raises(ValueError, match="invalid") as caught:
        check(case["value"])
    assert str(caught.value) == case["error"]


@golden("eval")
def test_eval(case):
    extras = {
        "last_expression": case.get("last_expression", True),
        "python_version": case.get("python_version"),
    }
    code = case.get("code") or case["files"]
    request = requests.evaluate(code, case["options"], **extras, key=None, retry=NO_RETRY)
    assert request.json == case["body"]


@golden("results")
def test_results(case):
    check_result(case)


@golden("results_with_files", "results_of_newer_servers")
def test_results_with_files(case):
    result = check_result(case)
    assert [[file.path, file.size] for file in result.files] == case["files"]
    assert result.files_truncated == case["files_truncated"]
    skipped = [[each.path or "", each.pattern or "", each.reason] for each in result.files_skipped]
    assert skipped == case.get("files_skipped", [])
    assert result.files_skipped_truncated == case.get("files_skipped_truncated", False)


def check_result(case) -> Result:
    wire, result = case["result"], Result.from_json(case["result"])
    assert (result.ended, result.ok) == (case["ended"], case["ok"])
    if result.ended:
        assert exit_codes.exit_code_of(result.status, result.exit_code, result.error_type) == case["exit"]
    plain = ("execution_id", "status", "stdout", "stderr", "exit_code", "error", "error_type", "error_line")
    for name in (*plain, "tenant", "session_id", "entrypoint", "result", "duration_ms"):
        assert getattr(result, name) == wire.get(name)
    for name in ("created_at", "started_at", "finished_at"):
        assert getattr(result, name) == (datetime.fromisoformat(wire[name]) if name in wire else None)
    assert result.truncated.stdout == wire.get("truncated", {}).get("stdout", False)
    assert [{"data": d.data, "metadata": d.metadata} for d in result.displays] == wire.get("displays", [])
    assert [(entry.type, entry.relation, len(entry.frames)) for entry in result.traceback] == [
        (entry["type"], entry.get("relation"), len(entry["frames"])) for entry in wire.get("traceback", [])
    ]
    assert result.interpreter_restarted == wire.get("interpreter_restarted", False)
    assert result.truncated.displays == wire.get("truncated", {}).get("displays", False)
    assert result.raw == wire
    return result


@golden("clusters")
def test_states_of_clusters(case):
    cluster = Cluster.from_json(case["cluster"])
    assert without_none(cluster) | {"leader": cluster.leader} == case["cluster"]
    assert cluster.raw == case["cluster"]


@golden("timelines")
def test_timelines(case):
    timeline = Timeline.from_json(case["timeline"])
    assert without_none(timeline) == case["timeline"]
    assert timeline.raw == case["timeline"]


def without_none(value: object) -> dict:
    """Return the fields of a typed answer as they were in the JSON object."""
    fields = attrs.asdict(
        value,
        filter=lambda attribute, value: value is not None and attribute.name != "raw",
        value_serializer=lambda _, __, value: (
            f"{value:%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else value
        ),
    )
    return json.loads(json.dumps(fields))


@golden("errors")
def test_errors(case):
    error = error_from_response(case["status"], case["headers"], case["body"].encode())
    assert type(error).__name__ == KINDS[case["kind"]]
    assert (error.status, error.code, error.field) == (case["status"], case["code"], case["field"])
    assert (str(error), error.body) == (case["text"], case["body"].encode())
    assert error.retry_after == case.get("retry_after")


@golden("events")
def test_events(case):
    (message,) = Parser().feed(case["sse"].encode())
    event, wanted = event_from_message(message), case["event"]
    match event:
        case None:
            assert wanted is None
        case Lifecycle():
            assert wanted["kind"] == "lifecycle"
            assert (event.id, event.type) == (wanted["id"], wanted["type"])
            assert event.execution_id == wanted["execution_id"]
        case Output():
            data = base64.b64decode(wanted["data"])
            assert event == Output(id=wanted["id"], stream=wanted["stream"], data=data)
        case Setup():
            assert event == Setup(id=wanted["id"], data=base64.b64decode(wanted["data"]))
        case Displayed():
            assert event == Displayed(id=wanted["id"], display=Display.from_json(wanted["display"]))
        case Ended():
            result = Result.from_json(wanted["result"])
            assert event == Ended(id=wanted["id"], type=wanted["type"], result=result)


@golden("sse")
def test_sse(case):
    assert Parser().feed(case["sent"].encode()) == [Message(*message) for message in case["messages"]]


@golden("ignore")
def test_ignore(case):
    rules = IgnoreRules.parse(case["dockerignore"])
    assert [path for path in case["ignored"] if not rules.ignores(path)] == []
    assert [path for path in case["sent"] if rules.ignores(path)] == []
