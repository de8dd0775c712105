"""Deploy the job files on a real Nomad: validate, deploy, restart, upgrade, drain and stop, under load.

The figures are printed at the end; docs/soak.md keeps them."""

import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from pyexec.domain.events import Running
from tests.cluster.scene_checks import check_true, read_logs
from tests.nomad.conftest import FIGURES
from tests.nomad.deployment import Deployment, second_image
from tests.nomad.replica_contract import check_contract
from tests.support.api import api_of
from tests.support.consul import dev_agent
from tests.support.containers import gateway
from tests.support.images import remove_images
from tests.support.load import ANSWER_SECONDS, Load
from tests.support.nomad import running_nomad
from tests.support.registry import python_layer, running_registry
from tests.support.server_image import built_image
from tests.support.starts import Starts, observed_starts

pytestmark = pytest.mark.soak

TEST_SECONDS = 900
RUNS_MAX = 1000
"""The most runs of the load during one restart or upgrade."""
DRAINED = "import time; print('on', flush=True); time.sleep(8); print('drained')"
SOCKET = Path("/var/run/docker.sock")
SETTINGS = {
    "PYEXEC_FIREWALL": "off",  # the tests share the machine's networks
    "PYEXEC_RUN_NETWORK": "none",
    "PYEXEC_SETUP_NETWORK": "none",
    "PYEXEC_WARM_POOL": "1",
    "PYEXEC_DEFAULT_MEMORY_MB": "64",
    "PYEXEC_DEFAULT_DISK_MB": "16",
}
VARIABLES = {
    "sandbox_memory_mb": "1024",
    "max_concurrent": "2",
    "max_setups": "1",
    "memory": "256",
    "cpu": "200",
}


@pytest.fixture(scope="module")
def images() -> Iterator[Sequence[str]]:
    """Provide two versions of the server's image."""
    with built_image() as built:
        second = second_image(built)
        try:
            yield built, second
        finally:
            remove_images(f"reference={second}")


@asynccontextmanager
async def deployed(
    job: str, count: int, variables: Mapping[str, str], directory: Path, gateway: str
) -> AsyncIterator[tuple[Deployment, str]]:
    """Run Consul and Nomad for a job, with its settings and an API token in a Nomad variable; yield the token, too."""
    token = secrets.token_hex(16)
    with dev_agent(directory / "consul", client_addr=f"127.0.0.1 {gateway}") as consul:
        async with running_nomad(consul) as nomad:
            port = consul.address.rpartition(":")[2]
            given = {**VARIABLES, "consul_addr": f"{gateway}:{port}", **variables}
            settings = {**SETTINGS, "PYEXEC_API_TOKENS": token}
            items = [f"{name}={value}" for name, value in settings.items()]
            await nomad.run("var", "put", f"nomad/jobs/{job}", *items)
            yield Deployment(job, count, given, nomad, consul), token


async def test_the_job_with_the_docker_of_the_machine(
    images: Sequence[str], image: str, tmp_path: Path
) -> None:
    variables = {"default_image": image, "docker_gid": str(os.stat(SOCKET).st_gid)}
    async with deployed("pyexec", 3, variables, tmp_path, gateway()) as (deployment, token):
        await check_life(deployment, images, token, restart=[], engine_is_shared=True)


async def test_the_job_with_a_docker_of_its_own(images: Sequence[str], image: str, tmp_path: Path) -> None:
    """The tasks restart without their engines, which would end the programs."""
    with running_registry(gateway()) as registry:
        registry.put("python", python_layer(image))
        variables = {
            "engine_image": image,
            "engine_args": f'["--insecure-registry={registry.address}"]',
            "engine_cpu": "400",
            "default_image": registry.name("python"),
        }
        async with deployed("pyexec-dind", 2, variables, tmp_path, gateway()) as (deployment, token):
            await check_life(deployment, images, token, restart=["-task=server"], engine_is_shared=False)


async def check_life(
    deployment: Deployment,
    images: Sequence[str],
    token: str,
    *,
    restart: Sequence[str],
    engine_is_shared: bool,
) -> None:
    """Take a job through its life, from `nomad job validate` to its end."""
    first, second = images
    job, nomad = deployment.job, deployment.nomad
    headers = {"Authorization": f"Bearer {token}"}
    with anyio.fail_after(TEST_SECONDS):
        assert "Job validation successful" in await nomad.run("job", "validate", *deployment.options(first))
        with timed(deployment, f"deploy {deployment.count} replicas"):
            await deployment.run(first)
        urls = await deployment.until_ready()
        label = await deployment.deployment_id()
        volumes = set(await deployment.volumes())
        with timed(deployment, "the API's contract over two replicas"):
            async with api_of(urls[0], headers=headers) as one, api_of(urls[1], headers=headers) as other:
                await check_contract(one, other)
                await check_contract(other, one)

        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        observed = observed_starts(label) if engine_is_shared else nullcontext(Starts())
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http, observed as starts:
            load = Load(urls, http, random.Random(4))
            async with under_load(deployment, load, starts, "restart all replicas"):
                await nomad.run("job", "restart", "-yes", "-on-error=fail", "-batch-wait=10s", *restart, job)
                await deployment.until_ready()
            async with under_load(deployment, load, starts, "upgrade with a canary"):
                upgrade = await deployment.run(second)
                volumes |= set(await deployment.volumes())
                await deployment.until_ready()
        check_canary(upgrade)
        assert {second} <= await deployment.inspect("{{.Config.Image}}") - {first}
        await check_drain(deployment, headers)
        with timed(deployment, "stop the job"):
            await nomad.run("job", "stop", "-purge", "-yes", job)
            await nomad.until_stopped()
        assert await deployment.leftovers(label, volumes) == {}


@asynccontextmanager
async def under_load(deployment: Deployment, load: Load, starts: Starts, what: str) -> AsyncIterator[None]:
    """Run programs during the block. Check that all have completed, none was lost, and none started twice."""
    before, refusals, end = len(load.jobs), load.refusals, anyio.Event()
    with timed(deployment, what) as figures:
        async with anyio.create_task_group() as balancer:
            balancer.start_soon(deployment.balance, load, name="load balancer")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(load.run_until, end, most=RUNS_MAX), name="load")
                yield
                end.set()
            balancer.cancel_scope.cancel()
    jobs = list(load.jobs.values())[before:]
    figures |= {"runs": len(jobs), "retried": load.refusals - refusals}
    results = {job.mark: load.results[job.mark] for job in jobs}
    logs = await read_logs(deployment.consul.address, [result["execution_id"] for result in results.values()])
    failed = {
        mark: (result, logs[result["execution_id"]])
        for mark, result in results.items()
        if result["status"] != "completed"
    }
    assert not failed, failed
    for job in jobs:
        for line in results[job.mark]["stdout"].splitlines():
            starts.record(line)
        check_true(job, results[job.mark], starts.seen[job.mark])
        assert sum(isinstance(event, Running) for event in logs[results[job.mark]["execution_id"]]) == 1


def check_canary(upgrade: Mapping[str, Any]) -> None:
    """Check that one canary was placed and promoted before the other replicas were replaced."""
    group = upgrade["TaskGroups"]["server"]
    assert (len(group["PlacedCanaries"]), group["Promoted"]) == (1, True), group
    assert group["HealthyAllocs"] == group["DesiredTotal"], group


async def check_drain(deployment: Deployment, headers: Mapping[str, str]) -> None:
    """Drain the node while a program runs. The program ends in this time, and its result is there afterwards."""
    nomad = deployment.nomad
    urls = await deployment.until_ready()
    async with api_of(urls[0], headers=headers) as api:
        execution_id = await api.accepted(DRAINED)
        await api.until_printed(execution_id, b"on\n")
    with timed(deployment, "drain the node"):
        await nomad.run("node", "drain", "-enable", "-self", "-force", "-yes")
        await nomad.until_stopped()
    with timed(deployment, "make the node eligible again"):
        await nomad.run("node", "drain", "-disable", "-self", "-yes")
        urls = await deployment.until_ready()
    async with api_of(urls[-1], headers=headers) as api:
        result = await api.ended(execution_id)
    assert (result["status"], result["stdout"]) == ("completed", "on\ndrained\n"), result


@contextmanager
def timed(deployment: Deployment, what: str) -> Iterator[dict[str, object]]:
    """Record how long the block takes, and yield the record, to add figures."""
    figures = {"job": deployment.job, "step": what, "seconds": 0, "runs": "", "retried": ""}
    started = time.monotonic()
    yield figures
    figures["seconds"] = round(time.monotonic() - started)
    FIGURES.append(figures)
