"""Test logs and events: the original bytes, in order, from any position, for every kind of reader."""

import base64

import pytest

from tests.support.api import Api, Event, form, parse_events
from tests.support.archives import script

TALK = """
import sys
for n in range(4):
    print('out', n, flush=True)
    print('err', n, file=sys.stderr, flush=True)
sys.stdout.buffer.write(b'\\xff\\x00end')
"""
BOTH = "".join(f"{stream} {n}\n" for n in range(4) for stream in ("out", "err"))
ON = "import sys, time\nprint('on', flush=True)\nprint('oops', file=sys.stderr)\ntime.sleep(3600)"


async def logs(api: Api, execution_id: str, query: str = "") -> bytes:
    async with api.session.get(f"/api/v1/executions/{execution_id}/logs{query}") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        return await response.read()


def printed(events: list[Event], stream: str) -> bytes:
    return b"".join(e.output for e in events if e.name == "output" and e.data["stream"] == stream)


@pytest.mark.parametrize("follow", ["", "&follow=1"])
async def test_logs_are_the_original_bytes(api: Api, follow: str) -> None:
    execution_id = (await api.run(TALK))["execution_id"]
    out = b"".join(b"out %d\n" % n for n in range(4)) + b"\xff\x00end"
    err = b"".join(b"err %d\n" % n for n in range(4))
    assert await logs(api, execution_id, f"?stream=stdout{follow}") == out
    assert await logs(api, execution_id, f"?stream=stderr{follow}") == err
    both = await logs(api, execution_id, f"?{follow}")
    assert len(both) == len(out) + len(err)
    assert b"\xff\x00end" in both


@pytest.mark.claims
async def test_logs_of_a_running_program_can_be_read_or_followed(api: Api) -> None:
    execution_id = await api.accepted(ON)
    async with api.session.get(f"/api/v1/executions/{execution_id}/logs?follow=1&stream=stdout") as following:
        assert await following.content.readexactly(3) == b"on\n"
        await api.until_printed(execution_id, b"oops\n")
        assert await logs(api, execution_id) == b"on\noops\n"
        assert await logs(api, execution_id, "?stream=stderr") == b"oops\n"
        await api.kill(execution_id)
        assert await following.content.read() == b""


@pytest.mark.claims
async def test_logs_of_a_queued_execution_are_empty(narrow: Api) -> None:
    first = await narrow.accepted(ON)
    await narrow.until_printed(first, b"on")
    waiting = await narrow.accepted("print('late')")
    assert await logs(narrow, waiting) == b""
    async with narrow.session.get(f"/api/v1/executions/{waiting}/logs?follow=1") as following:
        await narrow.kill(first)
        assert await following.content.read() == b"late\n"


@pytest.mark.claims
async def test_events_are_complete_and_in_order(api: Api) -> None:
    result = await api.run(TALK)
    events = await api.all_events(result["execution_id"])
    assert [e.name for e in events if e.name != "output"] == ["submitted", "claimed", "running", "finished"]
    assert [e.data["seq"] for e in events[:3]] == [1, 2, 3]
    assert all(e.data["execution_id"] == result["execution_id"] for e in events[:3])
    assert events[-1].data == result
    assert (
        base64.b64encode(printed(events, "stdout")).decode()
        == base64.b64encode(await logs(api, result["execution_id"], "?stream=stdout")).decode()
    )
    positions = [tuple(map(int, e.id.split("."))) for e in events]
    assert positions == sorted(set(positions))


async def test_events_resume_after_every_position(api: Api) -> None:
    execution_id = (await api.run(TALK))["execution_id"]
    events = await api.all_events(execution_id)
    for number, event in enumerate(events, start=1):
        assert await api.all_events(execution_id, event.id) == events[number:]
    assert await api.all_events(execution_id, "0.0") == events


async def test_events_resume_inside_a_chunk(api: Api) -> None:
    execution_id = (await api.run("print('0123456789')"))["execution_id"]
    rest = await api.all_events(execution_id, "3.4")
    assert (printed(rest, "stdout"), rest[-1].name) == (b"456789\n", "finished")


@pytest.mark.claims
async def test_a_live_stream_resumes_where_it_was_left(api: Api) -> None:
    execution_id = await api.accepted(ON)
    seen: list[Event] = []
    async with api.events(execution_id) as events:
        async for event in events:
            seen.append(event)
            if event.name == "output":
                break
    await api.until_printed(execution_id, b"oops\n")
    async with api.events(execution_id, seen[-1].id) as events:
        killed = False
        async for event in events:
            seen.append(event)
            if not killed:
                killed = (await api.kill(execution_id)).status == 200
    assert (printed(seen, "stdout"), printed(seen, "stderr")) == (b"on\n", b"oops\n")
    assert seen[-1].name == "killed"
    names = [e.name for e in seen if e.name != "output"]
    assert names == ["submitted", "claimed", "running", "kill_requested", "killed"]


async def test_many_watchers_of_one_run_see_the_same(api: Api) -> None:
    execution_id = await api.accepted(TALK)
    async with api.events(execution_id) as first, api.events(execution_id) as second:
        one, two = [e async for e in first], [e async for e in second]
    assert one[-1] == two[-1]
    for stream in ("stdout", "stderr"):
        assert printed(one, stream) == printed(two, stream)


@pytest.mark.parametrize(
    "position", ["x", "1", "1.", ".1", "1.x", "-1.0", "1.1.1", "9" * 40, "\u0661.\u0662"]
)
async def test_an_invalid_last_event_id_is_refused(api: Api, position: str) -> None:
    execution_id = (await api.run(""))["execution_id"]
    answer = await api.get(f"/api/v1/executions/{execution_id}/events", headers={"Last-Event-ID": position})
    assert (answer.status, answer.document["field"]) == (400, "Last-Event-ID")
    assert "<seq>.<output offset>" in answer.document["error"]


@pytest.mark.claims
async def test_sync_as_an_event_stream_gives_the_id_first_and_the_result_last(api: Api) -> None:
    headers = {"Accept": "text/event-stream"}
    async with api.session.post("/api/v1/exec/sync", data=form(script(TALK)), headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        events = [event async for event in parse_events(response)]
    execution_id = events[0].data["execution_id"]
    assert events[-1].data == (await api.get(f"/api/v1/executions/{execution_id}")).document
    assert events[-1].data["stdout"].startswith("out 0\n")
    assert [e.name for e in events if e.name != "output"] == ["submitted", "claimed", "running", "finished"]


async def test_sync_as_an_event_stream_refuses_with_a_status(api: Api) -> None:
    headers = {"Accept": "text/event-stream"}
    answer = await api.sync(script(""), {"entrypoint": "nowhere.py"}, headers=headers)
    assert (answer.status, answer.document["field"]) == (400, "entrypoint")


async def test_eval_as_an_event_stream(api: Api) -> None:
    headers = {"Accept": "text/event-stream"}
    async with api.session.post("/api/v1/eval", json={"code": "print(BOTH)"}, headers=headers) as response:
        events = [event async for event in parse_events(response)]
    assert (events[-1].name, events[-1].data["error_type"]) == ("finished", "NameError")
