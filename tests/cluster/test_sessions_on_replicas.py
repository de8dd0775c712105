"""Test interpreter sessions in a cluster: every replica serves them, and opens them where there is room."""

from pathlib import Path

import pytest

from tests.support.api import api_of, parse_events
from tests.support.cluster import running_cluster
from tests.support.consul import dev_agent
from tests.support.mcp import http_client, structured, text_of
from tests.support.sessions import Session, opened

pytestmark = pytest.mark.independent

SLEEP = "import time\nkept = 1\nprint('on', flush=True)\ntime.sleep(60)"


async def test_any_replica_serves_a_session(session_image: str, tmp_path: Path) -> None:
    with dev_agent(tmp_path / "consul") as consul:
        async with running_cluster(tmp_path, session_image, [consul], 2, max_sessions="1") as cluster:
            async with (
                api_of(cluster.urls[0]) as owner,
                api_of(cluster.urls[1]) as other,
                opened(owner) as session,
            ):
                there = Session(other, session.document)
                await check_cells(there)
                await check_files(there)
                await check_tools(cluster.urls[1], session.document["id"])
                async with opened(owner) as second:
                    assert second.document["replica"] != session.document["replica"]
                    assert (await Session(owner, second.document).result("1 + 1"))["result"] == "2"
                    full = await owner.request("POST", "/api/v1/sessions")
                    assert (full.status, full.document["code"]) == (429, "too_many_sessions")
                closed = (await other.request("DELETE", there.path)).document
                assert (closed["status"], closed["close_reason"]) == ("closed", "deleted")
            await cluster.stop()


async def check_cells(session: Session) -> None:
    """Run cells through a replica that does not own the session."""
    assert (await session.result("x = 6\nx * 7"))["result"] == "42"
    headers = {"Accept": "text/event-stream"}
    path = f"{session.path}/eval"
    async with session.api.session.post(path, json={"code": "print(x)"}, headers=headers) as response:
        events = [event async for event in parse_events(response)]
    assert events[-1].name == "finished"
    assert b"".join(event.output for event in events if event.name == "output") == b"6\n"
    running = await session.submitted(SLEEP)
    await session.api.until_printed(running, b"on")
    assert (await session.get())["cells"] == {"waiting": 0, "running": running}
    assert await session.post("interrupt") == {"interrupted": True}
    assert (await session.api.ended(running))["error_type"] == "KeyboardInterrupt"
    assert (await session.result("kept"))["result"] == "1"


async def check_files(session: Session) -> None:
    """Transfer files through a replica that does not own the session."""
    data = bytes(range(256)) * 16 * 1024
    assert (await session.put("in/data.bin", data)).status == 204
    assert await session.read("in/data.bin") == (200, data)
    assert await session.files("in/*") == ["in/data.bin"]
    assert (await session.api.request("DELETE", f"{session.path}/files/in/data.bin")).status == 204


async def check_tools(url: str, session_id: str) -> None:
    """Call the tools of MCP at a replica that does not own the session."""
    session = {"session_id": session_id}
    async with http_client(url, "2025-11-25") as client:
        result = structured(await client.call_tool("run_python", {**session, "code": "x * 8"}))
        assert result["result"] == "48"
        await client.call_tool("write_file", {**session, "path": "note.txt", "text": "a note"})
        read = await client.call_tool("read_file", {**session, "path": "note.txt"})
        assert text_of(read) == "a note"
