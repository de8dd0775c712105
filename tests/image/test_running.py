"""The image at work, by the commands of docs/deployment.md: on this machine's engine, and on one of its own."""

import subprocess
import time

from pyexec_client import Client
from tests.support.containers import containers
from tests.support.deployment import Page

PATIENCE_SECONDS = 60


def wait_until_healthy(page: Page) -> None:
    """Returns when the engine has said so of the server's container; fails when it says that it is not."""
    until = int(time.time()) + PATIENCE_SECONDS
    watch = ["docker", "events", "--since=1m", f"--until={until}", f"--filter=container={page.name}"]
    with subprocess.Popen(
        [*watch, "--filter=event=health_status", "--format={{.Status}}"], stdout=subprocess.PIPE, text=True
    ) as events:
        try:
            assert events.stdout is not None
            assert events.stdout.readline() == "health_status: healthy\n"
        finally:
            events.kill()


async def test_on_this_machines_engine(page: Page) -> None:
    printed = page.run(page.block("On one machine"))
    assert '"stdout": "42\\n"' in printed
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
    stop, remove = page.block("Upgrading").splitlines()
    page.run(stop)
    assert page.inspect(".State.ExitCode") == "0"
    assert await containers(deployment) == set()
    page.run(remove)

    page.run(page.block("On one machine"))
    with Client(page.url) as client:
        result = client.get(execution)
    assert (result.status, result.stdout) == ("completed", "drained\n")


async def test_on_an_engine_of_its_own(page: Page) -> None:
    engine, server = page.block("With an engine of its own").split("docker run")[1:]
    page.run(f"docker run {engine}")
    inner = f"docker exec --interactive --env DOCKER_HOST=unix:///run/engine/docker.sock {page.name}-engine"
    # It says so when it listens; what programs run in would be pulled from a registry.
    page.run(
        f"grep --max-count=1 --line-buffered 'API listen' < <(docker logs --follow {page.name}-engine 2>&1)"
    )
    page.run(f"docker save {page.sandbox_image} | {inner} docker load")
    printed = page.run(f"docker run {server}")
    assert '"stdout": "42\\n"' in printed

    deployment = page.run(
        f"docker exec {page.name} python3 -c \"print(open('/data/deployment').read().strip())\""
    ).strip()
    ours = f"docker ps --quiet --filter label=pyexec.deployment={deployment}"
    label = f"--filter label=pyexec.deployment={deployment}"
    started = f"--since 10m --until $(($(date +%s) + 2)) --filter event=start {label}"
    assert page.run(f"{inner} docker events {started}") != ""
    assert page.run(ours) == ""  # nothing of it on the machine's engine
    page.run(f"docker stop {page.name}")
    assert page.inspect(".State.ExitCode") == "0"
    assert page.run(f"{inner} {ours} --all") == ""
