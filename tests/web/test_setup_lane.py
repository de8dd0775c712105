"""Setups have places of their own: runs that need no setup do not wait for them, and the rest waits its turn."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.api import Api, Event, api_of, form, parse_events
from tests.support.archives import script
from tests.support.server import SETUP_NETWORK, Server, running_server

pytestmark = pytest.mark.claims

SLOTS = 2
WAITING = b"waiting for other setups to end"


@pytest.fixture(scope="module")
def lane(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two slots, and one setup at a time."""
    settings = {**SETUP_NETWORK, "max_concurrent": str(SLOTS), "max_setups": "1", "max_queued": "4"}
    with running_server(tmp_path_factory.mktemp("lane") / "data", image, **settings) as server:
        yield server


@pytest.fixture
async def api(lane: Server) -> AsyncIterator[Api]:
    async with api_of(lane.url) as client:
        yield client


def slow(name: object) -> dict[str, Any]:
    return {"pre_commands": [f"echo begun {name}; sleep 600"]}


async def until_setup_prints(events: AsyncIterator[Event], wanted: bytes) -> None:
    async for event in events:
        if event.name == "setup" and wanted in event.output:
            return
    raise AssertionError(f"the execution has ended without {wanted!r}")


async def until_setup_of(api: Api, execution_id: str, wanted: bytes) -> None:
    async with api.events(execution_id) as events:
        await until_setup_prints(events, wanted)


async def test_runs_that_need_no_setup_end_while_environments_are_built(api: Api) -> None:
    first = await api.accepted("print('never')", **slow("first"))
    await until_setup_of(api, first, b"begun first")
    body = form(script("print('never')"), slow("sync"))
    headers = {"Accept": "text/event-stream"}
    async with api.session.post("/api/v1/exec/sync", data=body, headers=headers) as response:
        events = parse_events(response)
        await until_setup_prints(events, WAITING)
        sync = str(await api.newest())
        last = await api.accepted("print('never')", **slow("last"))
        await until_setup_of(api, last, WAITING)

        assert (await api.run("print('sync')"))["stdout"] == "sync\n"
        ids = [await api.accepted(f"print({number})") for number in range(SLOTS)]
        assert [(await api.ended(warm))["stdout"] for warm in ids] == ["0\n", "1\n"]
        for execution_id in (first, sync, last):
            answer = await api.get(f"/api/v1/executions/{execution_id}")
            assert answer.document["status"] == "pending"

        assert (await api.kill(sync)).document == {"status": "killed"}
        assert [event.name async for event in events][-1] == "killed"
    assert (await api.kill(first)).document == {"status": "killed"}
    await until_setup_of(api, last, b"begun last")
    assert (await api.kill(last)).document == {"status": "killed"}


async def test_setups_that_wait_fill_the_queue_and_runs_that_need_none_are_admitted(api: Api) -> None:
    ids = [await api.accepted("", **slow(number)) for number in range(5)]
    await until_setup_of(api, ids[0], b"begun 0")
    for execution_id in ids[1:]:
        await until_setup_of(api, execution_id, WAITING)
    answer = await api.eval({"code": "1", "requirements_txt": "six"})
    assert (answer.status, answer.document["code"]) == (429, "queue_full"), answer.document
    text = await (await api.session.get("/metrics")).text()
    for line in ("pyexec_setup_limit 1.0", "pyexec_setups_running 1.0", "pyexec_setup_queue_length 4.0"):
        assert f"\n{line}\n" in text
    assert "\npyexec_slots_in_use 0.0\n" in text
    assert (await api.run("print('warm')"))["stdout"] == "warm\n"
    for execution_id in reversed(ids):
        assert (await api.kill(execution_id)).document == {"status": "killed"}
