"""The image, run with the commands of docs/deployment.md: on this machine's Docker, and on a Docker in a container."""

import hashlib
import json
import subprocess
import time

import pytest
from anyio import to_thread

from pyexec_client import Client
from tests.isolation.networks import firewall
from tests.support.containers import containers, gateway
from tests.support.deployment import Page
from tests.support.otlp import running_collector

HEALTHY_SECONDS = 60


def wait_until_healthy(page: Page) -> None:
    """Wait until Docker reports the server's container as healthy; fail if it reports another status."""
    until = int(time.time()) + HEALTHY_SECONDS
    watch = ["docker", "events", "--since=1m", f"--until={until}", f"--filter=container={page.name}"]
    with subprocess.Popen(
        [*watch, "--filter=event=health_status", "--format={{.Status}}"], stdout=subprocess.PIPE, text=True
    ) as events:
        try:
            assert events.stdout is not None
            assert events.stdout.readline() == "health_status: healthy\n"
        finally:
            events.kill()


async def test_on_the_docker_of_this_machine(page: Page) -> None:
    """It exports a trace of its executions, too, to a collector on the machine."""
    async with running_collector(gateway()) as collector:
        setting = f"--env OTEL_EXPORTER_OTLP_ENDPOINT={collector.url} --env OTEL_BSP_SCHEDULE_DELAY=10"
        start = page.block("Docker on one machine").replace(page.image, f"{setting} {page.image}")
        printed = await to_thread.run_sync(page.run, start)
        assert '"stdout": "42\\n"' in printed
        execution_id = json.loads(printed[printed.index('{"execution_id"') :])["execution_id"]
        spans = await collector.trace(hashlib.sha256(execution_id.encode()).hexdigest()[:32])
        assert {"running", "completing"} <= spans.keys()
    deployment = page.run(
        f"docker exec {page.name} python3 -c \"print(open('/data/deployment').read().strip())\""
    ).strip()
    assert len(await containers(deployment)) > 0
    wait_until_healthy(page)

    with Client(page.url) as client:
        execution = client.submit("import time; time.sleep(3); print('drained')")
        for event in client.events(execution):
            if event.type == "running":
                break
    stop, remove = page.block("Upgrades").splitlines()
    page.run(stop)
    assert page.inspect(".State.ExitCode") == "0"
    assert await containers(deployment) == set()
    page.run(remove)

    page.run(page.block("Start a server", "README.md"))  # the same volume, so the result is still there
    with Client(page.url) as client:
        result = client.get(execution)
    assert (result.status, result.stdout) == ("completed", "drained\n")


@pytest.mark.full
async def test_in_a_container_it_closes_the_machine_to_its_own_networks(page: Page) -> None:
    networks = f"{page.name}-run", f"{page.name}-setup"
    settings = f"--env PYEXEC_RUN_NETWORK={networks[0]} --env PYEXEC_SETUP_NETWORK={networks[1]}"
    settings += " --env PYEXEC_STRICT=on"
    start = page.block("Start a server", "README.md").replace(
        "PYEXEC_FIREWALL=off", f"PYEXEC_FIREWALL=auto {settings}"
    )
    try:
        page.run(start)
        assert firewall("status", *networks).stdout.count(": closed") == 2
    finally:
        firewall("down", *networks)
        page.clear()
        page.run(f"docker network rm {' '.join(networks)}")
    assert page.run("docker ps --all --quiet --filter label=pyexec.firewall") == ""


@pytest.mark.full
async def test_on_a_docker_in_a_container(page: Page) -> None:
    engine, server = page.block("Docker with a separate engine").split("docker run")[1:]
    page.run(f"docker run {engine}")
    inner = f"docker exec --interactive --env DOCKER_HOST=unix:///run/engine/docker.sock {page.name}-engine"
    # Load the image of programs once the inner Docker listens; otherwise it would be pulled from a registry.
    page.run(
        f"grep --max-count=1 --line-buffered 'API listen' < <(docker logs --follow {page.name}-engine 2>&1)"
    )
    page.run(f"docker save {page.sandbox_image} | {inner} docker load")
    printed = page.run(f"docker run {server}")
    assert '"stdout": "42\\n"' in printed

    deployment = page.run(
        f"docker exec {page.name} python3 -c \"print(open('/data/deployment').read().strip())\""
    ).strip()
    list_containers = f"docker ps --quiet --filter label=pyexec.deployment={deployment}"
    label = f"--filter label=pyexec.deployment={deployment}"
    started = f"--since 10m --until $(($(date +%s) + 2)) --filter event=start {label}"
    assert page.run(f"{inner} docker events {started}") != ""
    assert page.run(list_containers) == ""  # none on the Docker of this machine
    page.run(f"docker stop {page.name}")
    assert page.inspect(".State.ExitCode") == "0"
    assert page.run(f"{inner} {list_containers} --all") == ""
