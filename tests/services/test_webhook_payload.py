"""Test the body of a webhook: what it contains, and that it is bounded whatever a program printed."""

import json
from typing import Any

from attrs import evolve

from pyexec.domain.execution import Execution, fold
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.services.webhooks import BODY_BYTES_MAX, STREAM_BYTES_MAX, webhook_body
from tests.events import claimed, finished, new_id, running, submitted


def ended(**changes: Any) -> Execution:
    return fold(new_id(), [submitted(), claimed(), running(), evolve(finished(), **changes)])


def body(execution: Execution, *segments: tuple[Stream, bytes], shows_tenant: bool = False) -> Any:
    output_log = OutputLog()
    for stream, data in segments:
        output_log.append(stream, data)
    encoded = webhook_body(execution, output_log, shows_tenant=shows_tenant)
    assert len(encoded) <= BODY_BYTES_MAX
    return json.loads(encoded)


def test_a_small_result_is_whole() -> None:
    found = body(ended(), (Stream.STDOUT, b"42\n"), (Stream.STDERR, b"\xff"))
    assert (found["data"]["stdout"], found["data"]["stderr"]) == ("42\n", "\ufffd")
    assert found["type"] == "execution.completed"
    assert found["timestamp"] == found["data"]["finished_at"]
    assert "left_out" not in found


def test_the_tenant_is_shown_only_where_tokens_are_set() -> None:
    assert "tenant" not in body(ended())["data"]
    assert body(ended(), shows_tenant=True)["data"]["tenant"] == "default"


def test_long_output_is_cut_between_characters_and_named() -> None:
    text = "é" * STREAM_BYTES_MAX
    found = body(ended(), (Stream.STDOUT, b"x" + text.encode()), (Stream.DISPLAY, b"{}"))
    assert found["data"]["stdout"] == "x" + "é" * (STREAM_BYTES_MAX // 2 - 1)
    assert found["left_out"] == ["stdout", "displays"]
    assert "displays" not in found["data"]


def test_a_result_that_is_still_too_large_is_a_summary() -> None:
    output = b"\0" * STREAM_BYTES_MAX
    found = body(ended(result="r" * 60_000), (Stream.STDOUT, output), (Stream.STDERR, b"e"))
    assert found["data"]["status"] == "completed"
    assert found["data"]["result"].endswith("…")
    assert {"stdout", "stderr", "result"} <= set(found["left_out"])
    assert "stdout" not in found["data"]
