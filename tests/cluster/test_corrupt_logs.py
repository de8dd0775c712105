"""Test executions with a corrupt log in Consul: each is logged, answered with an error, and affects no others."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from attrs import frozen

from tests.support.api import Api, api_of
from tests.support.cases import sampled
from tests.support.consul import Agent, dev_agent
from tests.support.server import Server, running_server

SLEEP = "import time; time.sleep(600)"
DAMAGES = {
    "missing number": ("000001", None),
    "corrupt value": ("000001", b"\xff no event"),
    "unknown version": ("000001", b'{"type": "submitted.v99"}'),
    "foreign key": ("foreign", b"{}"),
}


@frozen
class Scene:
    """A server with one slot, on a separate Consul."""

    agent: Agent
    server: Server
    api: Api

    async def occupy(self) -> str:
        """Run a program in the only slot, and return its execution id. Later executions wait for the slot."""
        execution = await self.api.accepted(SLEEP)
        await self.api.until_event(execution, "running")
        return execution

    def change(self, key: str, value: bytes | None) -> None:
        """Write a value directly to Consul, as an operator could by mistake. None deletes the key."""
        url = f"http://{self.agent.address}/v1/kv/pyexec/{key}"
        urlopen(Request(url, value, method="DELETE" if value is None else "PUT")).close()

    def damage(self, execution: str, how: str) -> None:
        number, value = DAMAGES[how]
        self.change(f"executions/{execution}/events/{number}", value)

    def value(self, key: str) -> bytes:
        with urlopen(f"http://{self.agent.address}/v1/kv/pyexec/{key}?raw") as answer:
            return bytes(answer.read())

    async def listed(self) -> set[str]:
        answer = await self.api.get("/api/v1/executions?limit=100")
        assert answer.status == 200, answer.document
        return {execution["execution_id"] for execution in answer.document["executions"]}

    def named(self, execution: str) -> int:
        """Count the log lines about an execution, except lines about requests for it."""
        lines = self.server.log.read_text().splitlines()
        requests = ("request failed", " pyexec.web.access: ")
        return sum(execution in line and not any(of in line for of in requests) for line in lines)


@contextmanager
def serving(agent: Agent, data_dir: Path, image: str) -> Iterator[Server]:
    settings = {"max_concurrent": "1", "warm_pool": "1", "stop_timeout": "1", "cleanup_ttl": "600"}
    with running_server(data_dir, image, consul_addr=agent.address, **settings) as server:
        yield server
    log = server.log.read_text()
    assert "Traceback" not in log, log


@asynccontextmanager
async def scene(agent: Agent, data_dir: Path, image: str) -> AsyncIterator[Scene]:
    with serving(agent, data_dir, image) as server:
        async with api_of(server.url) as api:
            yield Scene(agent, server, api)


@pytest.fixture(scope="module")
def served(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Server]]:
    directory = tmp_path_factory.mktemp("corrupt")
    with dev_agent(directory / "consul") as agent, serving(agent, directory / "data", image) as server:
        yield agent, server


@pytest.fixture
async def shared(served: tuple[Agent, Server]) -> AsyncIterator[Scene]:
    """Yield a scene that several tests share: a corrupt log of one of them does not affect the others."""
    agent, server = served
    async with api_of(server.url) as api:
        yield Scene(agent, server, api)


async def test_corrupt_logs_affect_no_other_executions(image: str, tmp_path: Path) -> None:
    with dev_agent(tmp_path / "consul") as agent:
        async with scene(agent, tmp_path / "one", image) as s:
            ended = {how: (await s.api.run("print('before')"))["execution_id"] for how in DAMAGES}
            sleeper = await s.occupy()
            # A queued execution has one event. Without this event, the execution does not exist.
            queued = {
                how: await s.api.accepted("print('never')") for how in DAMAGES if how != "missing number"
            }
            sound = await s.api.accepted("print('sound')")
            damaged = {*ended.values(), *queued.values()}
            for executions in (ended, queued):
                for how, execution in executions.items():
                    s.damage(execution, how)
            await s.api.kill(sleeper)
            assert (await s.api.ended(sound))["stdout"] == "sound\n"
            assert await s.listed() == {sleeper, sound}
            await check_answers(s.api, damaged)
        async with scene(agent, tmp_path / "two", image) as s:
            assert (await s.api.run("print(6 * 7)"))["stdout"] == "42\n"
            assert damaged.isdisjoint(await s.listed())
        for execution in damaged:
            assert s.named(execution) == 1, s.server.log.read_text()


async def check_answers(api: Api, damaged: set[str]) -> None:
    for execution in damaged:
        for method, path in (("GET", ""), ("GET", "/logs"), ("GET", "/events"), ("DELETE", "")):
            answer = await api.request(method, f"/api/v1/executions/{execution}{path}")
            assert (answer.status, answer.document["code"]) == (500, "corrupt_log"), (method, path)
            assert execution in answer.document["error"]


@sampled("value", [b"\xff no event", b'{"type": "finished.v99"}'], every=2)
async def test_a_run_with_a_corrupt_log_releases_its_slot(shared: Scene, value: bytes) -> None:
    running = await shared.api.accepted("import time; print('begun', flush=True); time.sleep(2)")
    await shared.api.until_printed(running, b"begun")
    shared.change(f"executions/{running}/events/000004", value)
    assert (await shared.api.run("print(6 * 7)"))["stdout"] == "42\n"
    answer = await shared.api.get(f"/api/v1/executions/{running}?wait=60")
    assert (answer.status, answer.document["code"]) == (500, "corrupt_log")
    assert 1 <= shared.named(running) <= 2


async def test_a_corrupt_payload_fails_its_execution(shared: Scene) -> None:
    sleeper = await shared.occupy()
    queued = await shared.api.accepted("print('never')")
    shared.change(f"executions/{queued}/blobs/payload/", b"no manifest")
    await shared.api.kill(sleeper)
    result = await shared.api.ended(queued)
    assert (result["status"], result["error_type"]) == ("failed", "internal")
    assert "payload" in result["error"]
    assert (await shared.api.run("print(6 * 7)"))["stdout"] == "42\n"


async def test_a_wrong_index_entry_does_not_end_an_execution(shared: Scene) -> None:
    """The index says that a queued execution completed long ago. It still runs, and is not retired."""
    sleeper = await shared.occupy()
    queued = await shared.api.accepted("print('whole')")
    lie = {"version": 1, "status": "completed", "finished_at": "2001-01-01T00:00:00.000000Z"}
    shared.change(f"status/{queued}", json.dumps(lie).encode())
    await shared.api.kill(sleeper)
    assert (await shared.api.ended(queued))["stdout"] == "whole\n"
