"""Test tenants in a cluster: any replica serves an execution to its tenant, also while it runs, and to no other."""

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from tests.support.api import Api, api_of
from tests.support.cluster import running_cluster
from tests.support.consul import dev_agent

pytestmark = pytest.mark.independent

FILE = "[a]\ntokens = ['token-a']\nmax_running = 1\n[b]\ntokens = ['token-b']\n"
WAITS = "import sys, time\nprint('on', flush=True)\ntime.sleep(3600)"


def as_token(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def first_to_print(api: Api, executions: Sequence[str], count: int) -> Sequence[str]:
    """Return the first `count` of these executions that print something."""
    found: list[str] = []

    async def watch(execution: str) -> None:
        await api.until_printed(execution, b"on")
        found.append(execution)
        if len(found) == count:
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for execution in executions:
            tasks.start_soon(watch, execution, name=f"output of {execution}")
    return found


async def test_each_replica_separates_tenants(image: str, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(FILE)
    with dev_agent(tmp_path / "consul") as consul:
        async with (
            running_cluster(tmp_path, image, [consul], 2, tenants_file=str(file), warm_pool="1") as cluster,
            api_of(cluster.urls[0], headers=as_token("token-a")) as here,
            api_of(cluster.urls[1], headers=as_token("token-a")) as there,
            api_of(cluster.urls[1], headers=as_token("token-b")) as stranger,
        ):
            # Each replica runs one at a time for the tenant, and one more waits. If the leader has not yet seen that
            # the first one runs, the second may wait on the same replica, and the third starts before it.
            executions = [await here.accepted(WAITS) for _ in range(3)]
            running = await first_to_print(there, executions, 2)
            (waiting,) = set(executions) - set(running)
            path = f"/api/v1/executions/{running[0]}"
            for method, of_execution in [("GET", path), ("GET", f"{path}/logs"), ("DELETE", path)]:
                assert (await stranger.request(method, of_execution)).status == 404
            assert (await stranger.get("/api/v1/executions")).document["executions"] == []
            for api, tenant, count in [(there, "a", 2), (stranger, "b", 0)]:
                view = (await api.get("/api/v1/cluster")).document
                assert [each["ready"] for each in view["replicas"]] == [True, True]
                assert not any("address" in each for each in view["replicas"])
                assert [(each["tenant"], each["running"]) for each in view["queue"]] == [(tenant, count)]
            assert (await stranger.run("print('b')"))["tenant"] == "b"
            listed = (await there.get("/api/v1/executions")).document["executions"]
            assert {each["execution_id"] for each in listed} == set(executions)
            assert sorted(each["status"] for each in listed) == ["pending", "running", "running"]
            await there.kill(running[0])
            await there.until_printed(waiting, b"on")
            for execution in (running[1], waiting):
                assert (await here.kill(execution)).document == {"status": "killed"}
            await cluster.stop()
