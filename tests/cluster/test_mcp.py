"""Test MCP in a cluster: any replica answers any call, and takes the cancellation of a call on another replica."""

from pathlib import Path

import anyio
import pytest

from tests.support.api import api_of
from tests.support.cluster import running_cluster
from tests.support.consul import dev_agent
from tests.support.mcp import ERAS, FOREVER, http_client, newest_running, structured
from tests.support.round_robin import round_robin

pytestmark = [pytest.mark.soak, pytest.mark.independent]

CALLS = 100


async def test_concurrent_calls_and_cancellation_behind_a_balancer(image: str, tmp_path: Path) -> None:
    with dev_agent(tmp_path / "consul") as consul:
        async with (
            running_cluster(tmp_path, image, [consul], 2) as cluster,
            round_robin(cluster.urls) as balancer,
            api_of(cluster.urls[0]) as api,
        ):
            for revision in ERAS:
                async with http_client(balancer, revision) as client:
                    answers: dict[int, str] = {}

                    async def call(number: int) -> None:
                        code = f"import random, time\ntime.sleep(random.random() / 10)\n{number} * 7"
                        result = await client.call_tool("run_python", {"code": code})
                        answers[number] = structured(result)["result"]  # noqa: B023

                    async with anyio.create_task_group() as tasks:
                        for number in range(CALLS):
                            tasks.start_soon(call, number, name=f"call {number}")
                    assert answers == {number: str(number * 7) for number in range(CALLS)}

                    before = await api.newest()
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client.call_tool, "run_python", {"code": FOREVER})
                        execution = await newest_running(api, before)
                        tasks.cancel_scope.cancel()
                    assert (await api.ended(execution))["status"] == "killed"
            await cluster.stop()
