"""Test the containers of setups, and those that users start from environments, on servers that end or restart."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import api_of
from tests.support.containers import deployment_of
from tests.support.images import docker, environments_of, own_image, remove_environments, remove_images
from tests.support.server import SETUP_NETWORK, running_server
from tests.support.setups import until_no_setups


@pytest.fixture(scope="module")
def image(image: str) -> Iterator[str]:
    """Yield an image that only this file uses, so that no other server builds environments from it."""
    with own_image(image) as own:
        yield own


@pytest.fixture(autouse=True)
def remove_built_environments(image: str) -> Iterator[None]:
    """Remove all environments after each test."""
    yield
    remove_environments(image)


async def test_setup_that_takes_too_long_is_ended(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, **SETUP_NETWORK, setup_timeout="1") as server:
        async with api_of(server.url) as api:
            result = await api.run("print('never')", pre_commands=["echo begun; sleep 600"])
    assert (result["status"], result["error_type"]) == ("failed", "setup_timeout")
    assert "1 s" in result["error"]
    assert "begun" in result["stderr"]


async def test_containers_that_a_user_started_are_not_removed(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, **SETUP_NETWORK, warm_pool="0") as server:
        async with api_of(server.url) as api:
            await api.run("", pre_commands=["true"])
    (made,) = environments_of(image)
    (by_hand,) = docker("run", "--detach", "--network", "none", made, "sleep", "600")
    try:
        with running_server(tmp_path / "data", image, warm_pool="1"):
            assert docker("inspect", "--format", "{{.State.Running}}", by_hand) == ["true"]
    finally:
        docker("rm", "--force", by_hand)


async def test_labels_of_an_image_do_not_make_its_containers_the_servers(image: str, tmp_path: Path) -> None:
    """A container inherits the labels of its image, and anyone can make an image."""
    with running_server(tmp_path / "data", image, warm_pool="0"):
        deployment = deployment_of(tmp_path / "data")
    (engine,) = docker("info", "--format", "{{.ID}}")
    labels = {"pyexec.deployment": deployment, "pyexec.engine": engine, "pyexec.replica": "rep_gone"}
    labels |= {"pyexec.environment": "0", "pyexec.base-size": "9" * 18}
    forged = f"pyexec-test-forged:{secrets.token_hex(4)}"
    text = "".join(f"LABEL {name}={value}\n" for name, value in labels.items())
    docker("build", "--network=none", "--quiet", "--tag", forged, "-", stdin=f"FROM {image}\n{text}")
    by_hand = ""
    try:
        (by_hand,) = docker("run", "--detach", "--network", "none", forged, "sleep", "600")
        with running_server(tmp_path / "data", image, warm_pool="1") as server:
            async with api_of(server.url) as api:
                assert (await api.run("print(1)", docker_image=forged))["stdout"] == "1\n"
            assert docker("inspect", "--format", "{{.State.Running}}", by_hand) == ["true"]
    finally:
        if by_hand:
            docker("rm", "--force", by_hand)
        remove_images(f"reference={forged}")


@pytest.mark.claims
async def test_setup_containers_of_a_killed_server_are_removed(image: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data, image, **SETUP_NETWORK) as server:
        async with api_of(server.url) as api:
            execution_id = await api.accepted("print('never')", pre_commands=["echo begun; sleep 600"])
            async with api.events(execution_id) as events:
                async for event in events:
                    if event.name == "setup" and b"begun" in event.output:
                        break
        server.process.kill()
        server.process.wait()
    with running_server(data, image, **SETUP_NETWORK) as server:
        async with api_of(server.url) as api:
            assert (await api.kill(execution_id)).status == 200
    await until_no_setups(server)
