"""Test images that must be pulled, that are unavailable, and that are not allowed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.api import Api, api_of
from tests.support.cases import sampled
from tests.support.images import docker, found, remove_environments, remove_images
from tests.support.registry import Registry, layer_of, python_layer, running_registry
from tests.support.server import SETUP_NETWORK, Server, running_server

HELLO = "print('hello')"
IN_USE_SECONDS = 125
"""Longer than the time for which an image counts as in use after its last run."""


@pytest.fixture(scope="module")
def registry(image: str) -> Iterator[Registry]:
    with running_registry() as serving:
        serving.put("team/python", python_layer(image))
        serving.put("team/nothing", layer_of(readme=b"no Python here"))
        serving.put("team/endless", layer_of(endless=b""))
        serving.endless.add("team/endless")
        serving.put("team/foreign", layer_of(python3=b"not for this machine"), architecture="s390x")
        serving.put("team/elsewhere", layer_of(python3=b""), architecture="s390x", listed=True)
        yield serving


@pytest.fixture(scope="module")
def pulling(image: str, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that has pulled nothing yet."""
    settings = {**SETUP_NETWORK, "warm_pool": "1", "max_concurrent": "6"}
    with running_server(tmp_path_factory.mktemp("pulling") / "data", image, **settings) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log
    remove_images(f"reference={registry.address}/*/*")


@pytest.fixture
async def api(pulling: Server) -> AsyncIterator[Api]:
    async with api_of(pulling.url) as client:
        yield client


async def test_an_image_is_pulled_once_with_its_progress_in_the_events(api: Api, registry: Registry) -> None:
    name = registry.name("team/python")
    ids = [await api.accepted(HELLO, docker_image=name) for _ in range(3)]
    results = [await api.ended(execution_id) for execution_id in ids]
    assert [result["stdout"] for result in results] == ["hello\n"] * 3, results
    assert registry.pulled.count("team/python") == 2  # its layer and its configuration
    for execution_id in ids:
        events = await api.all_events(execution_id)
        said = b"".join(event.output for event in events if event.name == "setup").decode()
        assert said.startswith(f"pulling {name}\n")
        assert "Pull complete" in said
    again = await api.run(HELLO, docker_image=name)
    assert (again["stdout"], again["timings_ms"]["setup"]) == ("hello\n", 0)


async def test_the_digest_that_ran_is_recorded(api: Api, registry: Registry, image: str) -> None:
    pulled = await api.run(HELLO, docker_image=registry.name("team/python"))
    own = await api.run(HELLO)
    (digest,) = docker(
        "image", "inspect", "--format", "{{index .RepoDigests 0}}", registry.name("team/python")
    )
    (image_id,) = docker("image", "inspect", "--format", "{{.Id}}", image)
    for result, wanted in ((pulled, digest.partition("@")[2]), (own, image_id)):
        events = await api.all_events(result["execution_id"])
        (running,) = (event for event in events if event.name == "running")
        assert running.data["image"] == wanted


@sampled(
    ("name", "said"),
    [
        ("team/missing", "does not exist"),
        ("team/nothing", "python3"),
        ("team/foreign", "s390x"),
        ("team/elsewhere", "architecture"),
    ],
    every=2,
)
async def test_an_unavailable_image_fails_the_run_with_the_reason(
    api: Api, registry: Registry, name: str, said: str
) -> None:
    full = registry.name(name)
    for result in (
        await api.run(HELLO, docker_image=full),
        await api.ended(await api.accepted(HELLO, docker_image=full)),
    ):
        assert (result["status"], result["error_type"]) == ("failed", "image_unavailable"), result
        assert said in result["error"], result
        assert "exit_code" not in result


async def test_a_long_message_of_a_registry_is_cut(api: Api, registry: Registry) -> None:
    result = await api.run(HELLO, docker_image=registry.name("team/verbose"))
    assert result["error_type"] == "image_unavailable"
    assert "xxx" in result["error"]
    assert len(result["error"]) < 3000


async def test_a_pull_ends_when_its_execution_is_killed(api: Api, registry: Registry) -> None:
    """Otherwise it would keep one of the engine's few downloads, for which the pulls of all callers wait."""
    execution = await api.accepted(HELLO, docker_image=registry.name("team/endless"))
    assert await anyio.to_thread.run_sync(registry.begun.wait, 20)
    await api.kill(execution)
    assert await anyio.to_thread.run_sync(registry.given_up.wait, 20)


async def test_a_setup_in_an_image_without_python_fails(api: Api, registry: Registry) -> None:
    result = await api.run(HELLO, docker_image=registry.name("team/nothing"), pre_commands=["true"])
    assert (result["status"], result["error_type"]) == ("failed", "image_unavailable"), result
    assert "python3" in result["error"]


async def test_an_unreachable_registry_is_reported(api: Api) -> None:
    result = await api.run(HELLO, docker_image="127.0.0.1:1/team/python:1")
    assert (result["status"], result["error_type"]) == ("failed", "image_unavailable"), result
    assert "registry" in result["error"]
    assert "does not answer" in result["error"]


async def test_only_allowed_images_run(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, allowed_images="python:*, team/*") as server:
        async with api_of(server.url) as api:
            answer = await api.eval({"code": "1", "docker_image": "debian:12"})
            assert (answer.status, answer.document["field"]) == (400, "docker_image")
            assert "python:*, team/*" in answer.document["error"]
            assert (await api.run(HELLO))["stdout"] == "hello\n"


@pytest.mark.soak
async def test_unused_images_are_evicted(image: str, registry: Registry, tmp_path: Path) -> None:
    """With a cache size of 0, a build evicts images that were used before. It keeps images that may be in use, and
    those of the operator."""
    name = registry.name("team/python")
    with running_server(tmp_path / "data", image, **SETUP_NETWORK, env_cache_mb="0", warm_pool="1") as server:
        async with api_of(server.url) as api:
            assert (await api.run(HELLO, docker_image=name))["stdout"] == "hello\n"
            for command in ("true", "true; true"):
                assert found(f"reference={name}")
                assert (await api.run(HELLO, pre_commands=[command]))["stdout"] == "hello\n"
                await anyio.sleep(IN_USE_SECONDS)
            assert not found(f"reference={name}")
            assert found(f"reference={image}")
    remove_environments(image)
