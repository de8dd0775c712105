"""Test that the server reads and writes the payloads of tests/wire, as the clients do."""

import base64
import json
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp
import cattrs
import pytest
from attrs import evolve

from pyexec.codec import to_json
from pyexec.domain import events
from pyexec.domain.cluster import ClusterView
from pyexec.domain.event_stream import EndItem, Item, LifecycleItem, OutputItem, Position
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import Result
from pyexec.domain.spec import EvalRequest, Metadata
from pyexec.domain.timeline import Timeline
from pyexec.web.handlers.server import cluster_answer
from pyexec.web.request_parser import parse_request
from pyexec.web.sse import encode
from tests.support.paths import WIRE

T = TypeVar("T")
MOMENT = datetime(2026, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)


def cases(name: str) -> list[dict]:
    return json.loads((WIRE / f"{name}.json").read_text())


def golden(*names: str):
    every = [case for name in names for case in cases(name)]
    return pytest.mark.parametrize("case", every, ids=lambda case: case.get("name", ""))


def value_of(wire: dict, kind: type[T]) -> T:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    return converter.structure(wire, kind)


def result_of(wire: dict) -> Result:
    return value_of(wire, Result)


@golden("metadata", "eval")
def test_requests_are_parsed_completely(case):
    sent = case["metadata"] if "metadata" in case else case["body"]
    parsed = parse_request(sent, Metadata if "metadata" in case else EvalRequest, what="metadata")
    understood = json.loads(json.dumps(to_json(parsed)))
    config = sent.get("config", {})
    assert {name: understood["config"][name] for name in config} == config
    assert {name: understood[name] for name in sent if name != "config"} == {
        name: value for name, value in sent.items() if name != "config"
    }


@golden("results", "results_with_files")
def test_results_match_the_wire_files(case):
    assert to_json(result_of(case["result"])) == case["result"]


@golden("clusters")
def test_states_of_clusters_match_the_wire_files(case):
    assert cluster_answer(value_of(case["cluster"], ClusterView)) == case["cluster"]


@golden("timelines")
def test_timelines_match_the_wire_files(case):
    assert to_json(value_of(case["timeline"], Timeline)) == case["timeline"]


@pytest.mark.parametrize(
    "case", [case for case in cases("errors") if "request" in case], ids=lambda case: case["name"]
)
async def test_error_responses_match_the_wire_files(case, server):
    request = case["request"]
    async with (
        aiohttp.ClientSession() as http,
        http.request(request["method"], server.url + request["path"], json=request.get("json")) as answer,
    ):
        assert (answer.status, await answer.text()) == (case["status"], case["body"])
        assert {name: answer.headers.get(name) for name in case["headers"]} == case["headers"]


def ended(wire: dict) -> dict[str, Any]:
    """Return the result without its output, and the output."""
    output_log = OutputLog()
    for stream in (Stream.STDOUT, Stream.STDERR):
        output_log.append(stream, wire[stream].encode())
    return {"result": evolve(result_of(wire), stdout="", stderr=""), "output_log": output_log}


def items() -> dict[str, Item]:
    wanted = {case["name"]: case["event"] for case in cases("events")}
    lost = events.FailureType.LOST
    return {
        "a step": LifecycleItem(
            position=Position(seq=3),
            event=events.Running(at=MOMENT, nonce="n", engine="e", container="c"),
        ),
        "output": OutputItem(
            position=Position(seq=3, offset=2),
            stream=Stream.STDOUT,
            data=base64.b64decode(wanted["output"]["data"]),
        ),
        "display": OutputItem(
            position=Position(seq=3, offset=100),
            stream=Stream.DISPLAY,
            data=json.dumps(wanted["display"]["display"]).encode(),
        ),
        "setup": OutputItem(position=Position(seq=3, offset=5), stream=Stream.SETUP, data=b"$ ls\n"),
        "the end": EndItem(
            position=Position(seq=4, offset=2),
            event=events.Finished(at=MOMENT, nonce="n", exit_code=0),
            **ended(wanted["the end"]["result"]),
        ),
        "a failure": EndItem(
            position=Position(seq=4),
            event=events.Failed(at=MOMENT, nonce="n", error_type=lost, error="its replica died"),
            **ended(wanted["a failure"]["result"]),
        ),
    }


@pytest.mark.parametrize("name", ["a step", "setup", "output", "display", "the end", "a failure"])
def test_events_match_the_wire_files(name):
    (case,) = [case for case in cases("events") if case["name"] == name]
    written = encode("exe_0190a2b4c6d87e1f9a0b1c2d3e4f5061", items()[name]).decode()
    assert read(written) == read(case["sse"])


def read(text: str) -> dict:
    """Parse a message, and its data as JSON, because the order of members does not matter."""
    lines = dict(line.split(": ", 1) for line in text.removesuffix("\n\n").split("\n"))
    return lines | {"data": json.loads(lines["data"])}
