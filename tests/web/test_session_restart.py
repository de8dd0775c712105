"""Test what a single server does with its interpreter sessions when it stops, and when it is killed."""

import shutil
from pathlib import Path

import pytest

from tests.support.api import api_of
from tests.support.archives import script
from tests.support.containers import deployment_of, until_containers
from tests.support.server import running_server
from tests.support.sessions import Session

pytestmark = pytest.mark.independent

FOREVER = "import time; print('on', flush=True); time.sleep(600)"
SLEEP = "import time\nkept = 1\nprint('on', flush=True)\ntime.sleep(6)\n'slept'"


async def test_a_session_survives_a_crash_and_is_closed_by_a_shutdown(
    session_image: str, image: str, tmp_path: Path
) -> None:
    with running_server(tmp_path / "data", session_image, stop_timeout="1") as first:
        async with api_of(first.url) as api:
            refused = await api.request("POST", "/api/v1/sessions", json={"docker_image": image})
            assert refused.status == 400, refused.document
            assert refused.document["field"] == "docker_image"
            assert "sessions need IPython, which the image" in refused.document["error"]
            created = await api.request("POST", "/api/v1/sessions")
            assert created.status == 201, created.document
            session = Session(api, created.document)
            running = await session.submitted(SLEEP)
            waiting = await session.submitted("kept += 1\nkept")
            await api.until_printed(running, b"on")
        first.process.kill()
        first.process.wait()
    with running_server(tmp_path / "data", session_image, stop_timeout="1") as second:
        async with api_of(second.url) as api:
            session = Session(api, created.document)
            result = await api.ended(running)
            assert (result["status"], result["stdout"], result["result"]) == ("completed", "on\n", "'slept'")
            assert (await api.ended(waiting))["result"] == "2"
            assert (await session.result("kept"))["result"] == "2"
            running = await session.submitted("time.sleep(60)")
            waiting = await session.submitted("1")
            await session.until_started(running)
        assert second.stop() == 0
        assert f"shutdown: session {created.document['id']} is closed\n" in second.log.read_text()
        await until_containers(deployment_of(second.data_dir), 0)
    with running_server(tmp_path / "data", session_image, stop_timeout="1") as third:
        async with api_of(third.url) as api:
            closed = await Session(api, created.document).get()
            assert (closed["status"], closed["close_reason"]) == ("closed", "shutdown")
            assert (await api.ended(running))["error_type"] == "session_closed"
            assert (await api.ended(waiting))["error_type"] == "session_closed"


async def test_the_server_of_a_copied_data_directory_leaves_those_of_the_original_alone(
    session_image: str, tmp_path: Path
) -> None:
    with running_server(tmp_path / "data", session_image, stop_timeout="1") as original:
        async with api_of(original.url) as api:
            created = await api.request("POST", "/api/v1/sessions")
            session = Session(api, created.document)
            assert (await session.result("kept = 42"))["status"] == "completed"
            before = (await api.submit(script(FOREVER))).document["execution_id"]
            await api.until_printed(before, b"on")
            shutil.copytree(original.data_dir, tmp_path / "copy")
            after = (await api.submit(script(FOREVER))).document["execution_id"]
            await api.until_printed(after, b"on")
            with running_server(tmp_path / "copy", session_image, stop_timeout="1"):
                for execution in (before, after):
                    status = (await api.request("DELETE", f"/api/v1/executions/{execution}")).document
                    assert status == {"status": "killed"}
                assert (await session.result("kept"))["result"] == "42"
