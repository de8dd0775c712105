"""Faults of Consul: lost responses, a crash, a lost leader, a suspended agent; and TLS."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import fail_after, to_thread

from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.errors import Conflict, ConsulSessionLost, SettingsError, Unavailable
from pyexec.ports import EventLog
from tests.contract.logs import consul_parts, in_own_task, prefix_of
from tests.events import claimed, new_id, released, running, submitted
from tests.support.consul import Agent, cluster, dev_agent, durable_agent, make_certificates
from tests.support.processes import suspended

pytestmark = pytest.mark.service

PATIENCE = 60


class Proxy:
    """A proxy that forwards a transaction to Consul, and closes the connection before the response."""

    def __init__(self, agent: Agent) -> None:
        self.address = ""
        self.cuts = 0
        self.before_cut: Callable[[], None] = lambda: None
        self._agent = agent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._agent.address.split(":")
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        cut = False

        async def there() -> None:
            nonlocal cut
            while data := await reader.read(65536):
                if self.cuts > 0 and b"PUT /v1/txn" in data:
                    self.cuts -= 1
                    cut = True
                to_writer.write(data)
            to_writer.close()

        async def back() -> None:
            while data := await to_reader.read(65536):
                if cut:  # Consul has executed the transaction
                    break
                writer.write(data)
            writer.close()
            to_writer.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(there, name="to Consul")
            tasks.start_soon(back, name="from Consul")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        async with server:
            yield self


async def test_an_append_with_a_lost_response_is_recognized(consul_agent: Agent, tmp_path: Path) -> None:
    async with (
        Proxy(consul_agent).running() as proxy,
        in_own_task(consul_parts(prefix_of(tmp_path), proxy.address)) as (_, _, log),
    ):
        execution, events = new_id(), [submitted(), claimed()]
        proxy.cuts = 2
        await log.append(execution, 0, events)
        assert proxy.cuts == 0
        proxy.cuts = 1
        with pytest.raises(Conflict):
            await log.append(execution, 0, [submitted()])
        assert list(await log.read(execution)) == events


async def test_an_append_without_a_response_is_unavailable(consul_agent: Agent, tmp_path: Path) -> None:
    async with (
        Proxy(consul_agent).running() as proxy,
        in_own_task(consul_parts(prefix_of(tmp_path), proxy.address)) as (_, _, log),
    ):
        proxy.cuts = 1_000_000
        with pytest.raises(Unavailable), fail_after(PATIENCE):
            await log.append(new_id(), 0, [submitted()])


async def test_waiters_fail_while_consul_is_down_and_work_again_after(tmp_path: Path) -> None:
    with durable_agent(tmp_path / "consul") as agent:
        async with in_own_task(consul_parts("ours", agent.address)) as (_, _, log):
            execution, events = new_id(), [submitted(), claimed()]
            await log.append(execution, 0, events)
            version = (await log.open_executions()).version
            failures: list[str] = []

            async def fails(waiting: Callable[[], object], name: str) -> None:
                with pytest.raises(Unavailable):
                    await waiting()  # type: ignore[misc]
                failures.append(name)

            with fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(fails, lambda: log.wait(execution, 2), "wait", name="wait")
                    tasks.start_soon(fails, lambda: log.open_executions(version), "open", name="open")
                    await anyio.wait_all_tasks_blocked()
                    await to_thread.run_sync(agent.kill)
            assert sorted(failures) == ["open", "wait"]
            for asking in (log.check(), log.read(execution), log.append(execution, 2, [running()])):
                with pytest.raises(Unavailable):
                    await asking
            agent.start()
            await to_thread.run_sync(agent.wait_ready)
            assert list(await log.read(execution)) == events
            await appended(log, execution, 2)
            assert (await log.open_executions()).lengths == {execution: 3}


async def appended(log: EventLog, execution: str, after: int) -> None:
    """Append as a replica does: retry until Consul answers, and check first whether the event is written."""
    with fail_after(PATIENCE):
        while True:
            try:
                if len(await log.read(execution)) > after:
                    return
                await log.append(execution, after, [running() if after == 2 else released()])
            except (ConsulSessionLost, Unavailable):
                await anyio.sleep(0.2)
            except Conflict:
                continue
            else:
                return


async def test_a_cluster_loses_no_events_with_its_leader(tmp_path: Path) -> None:
    with cluster(tmp_path) as agents:
        leader = next(agent for agent in agents if agent.is_leader())
        follower = next(agent for agent in agents if agent is not leader)
        async with in_own_task(consul_parts("ours", follower.address)) as (_, _, log):
            written: dict[str, int] = {}
            unanswered: set[str] = set()
            accepted, go_on = anyio.create_memory_object_stream[str](1000)

            async def write() -> None:
                while True:
                    execution = new_id()
                    try:
                        with anyio.CancelScope(shield=True):
                            await log.append(execution, 0, [submitted(), claimed(), running()])
                            written[execution] = 3
                            accepted.send_nowait(execution)
                    except Unavailable:
                        unanswered.add(execution)
                    await anyio.sleep(0.02)

            with fail_after(2 * PATIENCE), accepted, go_on:
                async with anyio.create_task_group() as writers:
                    for number in range(8):
                        writers.start_soon(write, name=f"writer {number}")
                    for _ in range(50):
                        await go_on.receive()
                    await to_thread.run_sync(leader.kill)
                    for _ in range(100):
                        await go_on.receive()
                    writers.cancel_scope.cancel()
            found = (await log.open_executions()).lengths
            assert written.items() <= found.items()
            assert found.keys() - written.keys() <= unanswered
            for execution in found:
                assert len(await log.read(execution)) == 3


async def test_tls_needs_a_trusted_certificate(tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    make_certificates(certificates)
    tls = {
        "ca_file": str(certificates / "consul-agent-ca.pem"),
        "cert_file": str(certificates / "dc1-server-consul-0.pem"),
        "key_file": str(certificates / "dc1-server-consul-0-key.pem"),
    }
    with dev_agent(tmp_path / "agent", tls=True, **tls) as agent:
        address = f"https://localhost:{agent.ports['https']}"
        async with ConsulKV(ConsulConfig(address=address, ca_file=Path(tls["ca_file"]))) as kv:
            assert await kv.put("key", b"value")
        async with ConsulKV(ConsulConfig(address=address)) as kv:
            with pytest.raises(Unavailable, match="certificate"):
                await kv.put("key", b"value")


def test_a_certificate_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    text = tmp_path / "passwd"
    text.write_text("root:x:0:0\n")
    for file, reason in ((tmp_path / "absent", "No such file"), (text, "")):
        named = f"is '{file}', which cannot be used: .*{reason}.*; allowed: a PEM file"
        for setting, option in (
            ("PYEXEC_CONSUL_CA_FILE", "ca_file"),
            ("PYEXEC_CONSUL_CERT_FILE", "cert_file"),
        ):
            with pytest.raises(SettingsError, match=f"^{setting} {named}"):
                ConsulConfig(address="https://localhost:1", **{option: file}).tls()


async def test_a_suspended_consul_is_unavailable_until_it_resumes(tmp_path: Path) -> None:
    with dev_agent(tmp_path) as agent:
        assert agent.process is not None
        async with ConsulKV(ConsulConfig(address=agent.address)) as kv:
            await kv.put("key", b"value")
            with (
                suspended(agent.process),
                pytest.raises(Unavailable, match=r"does not answer: timed out$"),
                fail_after(PATIENCE),
            ):
                await kv.get("key")
            _, entry = await kv.get("key")
            assert entry is not None
