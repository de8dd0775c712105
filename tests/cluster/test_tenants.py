"""Test tenants in a cluster: any replica serves an execution to its tenant, also while it runs, and to no other."""

from pathlib import Path

import pytest

from tests.support.api import api_of
from tests.support.cluster import running_cluster
from tests.support.consul import dev_agent

pytestmark = pytest.mark.independent

FILE = "[a]\ntokens = ['token-a']\nmax_running = 1\n[b]\ntokens = ['token-b']\n"
WAITS = "import sys, time\nprint('on', flush=True)\ntime.sleep(3600)"


def as_token(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


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
            # Each replica runs one at a time for the tenant, and one more waits.
            executions = [await here.accepted(WAITS) for _ in range(3)]
            for execution in executions[:2]:
                await there.until_printed(execution, b"on")
            path = f"/api/v1/executions/{executions[0]}"
            for method, of_execution in [("GET", path), ("GET", f"{path}/logs"), ("DELETE", path)]:
                assert (await stranger.request(method, of_execution)).status == 404
            assert (await stranger.get("/api/v1/executions")).document["executions"] == []
            assert (await stranger.run("print('b')"))["tenant"] == "b"
            listed = (await there.get("/api/v1/executions")).document["executions"]
            assert {each["execution_id"] for each in listed} == set(executions)
            assert sorted(each["status"] for each in listed) == ["pending", "running", "running"]
            await there.kill(executions[0])
            await there.until_printed(executions[2], b"on")
            for execution in executions[1:]:
                assert (await here.kill(execution)).document == {"status": "killed"}
            await cluster.stop()
