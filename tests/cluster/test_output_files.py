"""Test output files and results in a cluster: on any replica, after a crash of the owner, up to Consul's limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.api import Api, api_of
from tests.support.cluster import Cluster, running_cluster
from tests.support.consul import dev_agent

pytestmark = pytest.mark.independent

MEBIBYTE = 1024 * 1024


@asynccontextmanager
async def pair(image: str, directory: Path) -> AsyncIterator[tuple[Cluster, Api, Api]]:
    """Run two replicas on a separate Consul."""
    with dev_agent(directory / "consul") as consul:
        async with running_cluster(directory, image, [consul], 2) as cluster:
            async with api_of(cluster.urls[0]) as here, api_of(cluster.urls[1]) as there:
                yield cluster, here, there
            await cluster.stop()


async def test_any_replica_serves_output_files_up_to_the_limit_of_consul(image: str, tmp_path: Path) -> None:
    source = f"""
import os
open('small', 'w').write('small')
for name in 'ab': open(name, 'wb').write(name.encode() * {5 * MEBIBYTE})
"""
    async with pair(image, tmp_path) as (_, here, there):
        result = await here.run(source, output_files=["?", "small"])
        assert result["files"] == [{"path": "a", "size": 5 * MEBIBYTE}, {"path": "small", "size": 5}]
        assert result["files_truncated"] is True
        for api in (here, there):
            async with api.session.get(f"/api/v1/executions/{result['execution_id']}/files/small") as answer:
                assert (answer.status, await answer.read()) == (200, b"small")
            async with api.session.get(f"/api/v1/executions/{result['execution_id']}/files/a") as answer:
                assert await answer.read() == b"a" * (5 * MEBIBYTE)
            assert (await api.ended(result["execution_id"]))["files"] == result["files"]


async def test_an_adopting_replica_stores_the_output_files_and_displays(image: str, tmp_path: Path) -> None:
    """The replica reads them from the log that Docker keeps for the container."""
    source = f"""
import os, sys, time
display('first')
time.sleep(0.2)
print('up', flush=True)
time.sleep(8)
display({{'image/png': bytes({MEBIBYTE})}}, raw=True)
print('x' * {MEBIBYTE})
open('left', 'wb').write(os.urandom({4 * MEBIBYTE}))
"""
    async with pair(image, tmp_path) as (cluster, here, there):
        execution_id = await here.accepted(source, output_files=["left"], capture_displays=True)
        await here.until_printed(execution_id, b"up")
        first = {"data": {"text/plain": "'first'"}, "metadata": {}}
        for api in (here, there):
            assert (await api.get(f"/api/v1/executions/{execution_id}")).document["displays"] == [first]
        await cluster.replicas[0].term()
        result = await there.ended(execution_id)
        assert (result["status"], len(result["stdout"])) == ("completed", MEBIBYTE + 4), result["error"]
        assert result["files"] == [{"path": "left", "size": 4 * MEBIBYTE}]
        assert result["displays"][0] == first
        assert [len(each["data"]["image/png"]) for each in result["displays"][1:]] == [
            (MEBIBYTE + 2) // 3 * 4
        ]
        async with there.session.get(f"/api/v1/executions/{execution_id}/files/left") as answer:
            assert len(await answer.read()) == 4 * MEBIBYTE
