"""Test DELETE in every phase of an execution."""

import anyio
import pytest

from tests.support.api import Api

pytestmark = pytest.mark.claims

FOREVER = "import time\nprint('on', flush=True)\ntime.sleep(3600)"


async def test_a_killed_running_execution_keeps_its_output(api: Api) -> None:
    execution_id = await api.accepted(FOREVER)
    await api.until_printed(execution_id, b"on")
    answer = await api.kill(execution_id)
    assert (answer.status, answer.document) == (200, {"status": "killed"})
    result = (await api.get(f"/api/v1/executions/{execution_id}")).document
    assert (result["status"], result["stdout"]) == ("killed", "on\n")
    assert {"exit_code", "error_type", "error"}.isdisjoint(result)


async def test_a_killed_pending_execution_never_starts(narrow: Api) -> None:
    first = await narrow.accepted(FOREVER)
    await narrow.until_printed(first, b"on")
    waiting = await narrow.accepted("print('started')")
    assert (await narrow.kill(waiting)).document == {"status": "killed"}
    events = await narrow.all_events(waiting)
    assert "running" not in [event.name for event in events]
    assert events[-1].name == "killed"
    assert events[-1].data["stdout"] == ""
    assert "started_at" not in events[-1].data
    assert (await narrow.kill(first)).document == {"status": "killed"}
    assert (await narrow.run("print('next')"))["stdout"] == "next\n"


@pytest.mark.parametrize("source", ["print('done')", "raise SystemExit(3)"])
async def test_a_kill_does_not_change_an_ended_execution(api: Api, source: str) -> None:
    result = await api.run(source)
    for _ in range(2):
        answer = await api.kill(result["execution_id"])
        assert (answer.status, answer.document) == (200, {"status": "completed"})
    assert (await api.get(f"/api/v1/executions/{result['execution_id']}")).document == result


async def test_concurrent_kills_have_the_effect_of_one(api: Api) -> None:
    execution_id = await api.accepted(FOREVER)
    statuses: list[tuple[int, str]] = []

    async def kill() -> None:
        answer = await api.kill(execution_id)
        statuses.append((answer.status, answer.document["status"]))

    async with anyio.create_task_group() as tasks:
        for n in range(8):
            tasks.start_soon(kill, name=f"kill {n}")
    assert statuses == [(200, "killed")] * 8
    names = [event.name for event in await api.all_events(execution_id)]
    assert names.count("kill_requested") <= 1
    assert names[-1] == "killed"


async def test_a_kill_at_any_time_returns_the_final_status(api: Api) -> None:
    """Kills race with the claim, the start and the end. DELETE and GET return the same status."""
    for _ in range(15):
        execution_id = await api.accepted("print('quick')")
        answer = await api.kill(execution_id)
        assert answer.status == 200
        assert answer.document["status"] == (await api.ended(execution_id))["status"]
        assert answer.document["status"] in ("killed", "completed")
