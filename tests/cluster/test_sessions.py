"""Test that interpreter sessions survive the crash of their owner: variables, the running cell and the queue."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.cluster.scene_checks import recovery
from tests.support.api import api_of
from tests.support.cluster import Cluster, Replica, running_cluster
from tests.support.consul import dev_agent, durable_agent
from tests.support.server import installing_settings
from tests.support.sessions import Session

pytestmark = pytest.mark.independent

SCENE = "kill -9 of a session's owner"
RECOVERY_SECONDS_MAX = 20.0
"""A replica finds out within 6 s that the process of another one is gone (docs/design/sessions.md). Without that,
Consul would drop its membership after 17 to 20 s."""
SUSPENSION_SECONDS_MAX = 60
ROUND_SECONDS = 100
SETTINGS = {"default_memory_mb": "256", "default_disk_mb": "64", "warm_pool": "0"}
RUNNING = """\
import time
print("begins", flush=True)
time.sleep({seconds})
rounds += 1
print("ends", rounds)
"""
RUNNING_UNTIL_FILE = """\
import os, time
print("begins", flush=True)
while not os.path.exists("go"):
    time.sleep(0.05)
rounds += 1
print("ends", rounds)
"""
UNAVAILABLE = (502, 503)
RUN_EVENTS = ["submitted", "claimed", "running", "adopted", "finished"]
WAITED_EVENTS = ["submitted", "claimed", "released", "claimed", "running", "finished"]


@pytest.mark.parametrize(
    ("crashes", "replicas", "cell_seconds", "installs"),
    [
        pytest.param(1, 2, 10, False, id="once"),
        pytest.param(20, 3, 30, True, id="20 times", marks=pytest.mark.soak),
    ],
)
async def test_a_session_survives_the_crash_of_its_owner(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    crashes: int,
    replicas: int,
    cell_seconds: int,
    installs: bool,
) -> None:
    """The running cell ends once, with its own result; the cell that waits runs after it; no cell runs twice. With
    `installs`, the image has no IPython."""
    image = request.getfixturevalue("image" if installs else "session_image")
    settings = {**SETTINGS, **(installing_settings() if installs else {})}
    with durable_agent(tmp_path / "consul") as consul, anyio.fail_after(ROUND_SECONDS * (crashes + 1)):
        async with running_cluster(tmp_path, image, [consul], replicas, **settings) as cluster:
            document = await opened(cluster.urls[0])
            numbers = range(1, crashes + 1)
            seconds = [await crash(cluster, document, number, cell_seconds) for number in numbers]
            recovery(SCENE, "variables available again", [round(each, 1) for each in seconds])
            async with api_of(running_url(cluster)) as api:
                assert (await api.request("DELETE", f"/api/v1/sessions/{document['id']}")).status == 200
            await cluster.stop()
    assert max(seconds) <= RECOVERY_SECONDS_MAX


@pytest.mark.parametrize("expires", [False, pytest.param(True, marks=pytest.mark.soak)])
async def test_an_owner_that_wakes_does_nothing_to_a_session_that_was_adopted(
    session_image: str, tmp_path: Path, expires: bool
) -> None:
    """It wakes while the cell still runs, and before it knows that its Consul session has ended. With `expires`, it is
    suspended until Consul ends that session by its TTL."""
    with dev_agent(tmp_path / "consul") as consul, anyio.fail_after(3 * SUSPENSION_SECONDS_MAX):
        async with running_cluster(tmp_path, session_image, [consul], 2, **SETTINGS) as cluster:
            document = await opened(cluster.urls[0])
            owner = await owner_of(cluster, document)
            adopter = next(replica for replica in cluster.replicas if replica is not owner)
            async with api_of(adopter.url) as api, api_of(owner.url) as owner_api:
                session = Session(api, document)
                running = await session.submitted(RUNNING_UNTIL_FILE)
                await api.until_printed(running, b"begins")
                waiting = await session.submitted("rounds * 10")
                owner.pause()
                if not expires:
                    await cluster.end_consul_session(document["replica"])
                with anyio.fail_after(SUSPENSION_SECONDS_MAX):
                    await until_adopted(session, document["replica"])
                owner.resume()
                assert (await session.put("go", b"")).status == 204
                check_cell(await api.ended(running), "begins\nends 1\n")
                assert (await api.ended(waiting))["result"] == "10"
                await cluster.until_member(document["replica"])
                assert await value_of("rounds", Session(owner_api, document)) == "1"
                assert (await session.get())["interpreter_restarts"] == 0
                assert await event_names(session, running) == RUN_EVENTS
                assert await event_names(session, waiting) == WAITED_EVENTS
                assert (await api.request("DELETE", session.path)).status == 200
            await cluster.stop()


def check_cell(result: Any, stdout: str) -> None:
    assert (result["status"], result["stdout"]) == ("completed", stdout), result


async def value_of(expression: str, session: Session) -> Any:
    """Evaluate an expression. The replica may first have to find out that it does not own the session any more."""
    while True:
        answer = await session.eval(expression)
        if answer.status not in UNAVAILABLE:
            return answer.document["result"]
        await anyio.sleep(0.2)


async def opened(url: str) -> Any:
    """Open a session with the variable `rounds` on the replica at `url`."""
    async with api_of(url) as api:
        answer = await api.request("POST", "/api/v1/sessions", json={})
        assert answer.status == 201, answer.document
        await Session(api, answer.document).result("rounds = 0")
        return answer.document


async def crash(cluster: Cluster, document: Any, number: int, cell_seconds: int) -> float:
    """Kill the owner while a cell runs and another one waits. Check both, and return after how many seconds the
    variables could be read again. Before, start the replica that an earlier call has killed."""
    for replica in cluster.replicas:
        if replica.server is None:
            await replica.start()
    victim = await owner_of(cluster, document)
    other = next(replica for replica in cluster.replicas if replica is not victim)
    async with api_of(other.url) as api:
        session = Session(api, document)
        running = await session.submitted(RUNNING.format(seconds=cell_seconds))
        await api.until_printed(running, b"begins")
        waiting = await session.submitted("rounds * 10")
        owner = (await session.get())["replica"]
        killed_at = time.monotonic()
        await victim.kill()
        await until_adopted(session, owner)
        seconds = time.monotonic() - killed_at
        check_cell(await api.ended(running), f"begins\nends {number}\n")
        waited = await api.ended(waiting)
        assert (waited["status"], waited["result"]) == ("completed", str(number * 10)), waited
        assert (await session.result("rounds"))["result"] == str(number)
        assert (await session.get())["interpreter_restarts"] == 0
        assert await event_names(session, running) == RUN_EVENTS
        assert await event_names(session, waiting) == WAITED_EVENTS
    return seconds


def running_url(cluster: Cluster) -> str:
    return next(replica.url for replica in cluster.replicas if replica.server is not None)


async def owner_of(cluster: Cluster, document: Any) -> Replica:
    """Return the replica that owns the session, as any running replica sees it."""
    async with api_of(running_url(cluster)) as api:
        name = (await Session(api, document).get())["replica"]
    address = (await cluster.members())[name]["address"]
    return next(replica for replica in cluster.replicas if replica.url == address)


async def until_adopted(session: Session, former: str) -> None:
    """Wait until another replica than `former` owns the session, and is connected to its sandbox."""
    while True:
        answer = await session.api.get(session.path)
        assert answer.status in (200, *UNAVAILABLE), answer.document
        if answer.status == 200 and answer.document["replica"] != former:
            break
        await anyio.sleep(0.2)
    assert answer.document["status"] == "open"
    assert await session.files("no such file") == []


async def event_names(session: Session, execution_id: str) -> Sequence[str]:
    answer = await session.api.get(f"/api/v1/executions/{execution_id}/timeline")
    return [event["type"] for event in answer.document["events"]]
