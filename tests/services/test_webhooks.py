"""Test the delivery of webhooks with the embedded log and a receiver in memory."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio
import pytest
from anyio import fail_after, wait_all_tasks_blocked
from attrs import define, evolve, field

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.domain.webhook_schedule import Attempt, Outcome
from pyexec.domain.webhooks import AllowedHost, WebhookPolicy
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.webhooks import WebhookDeliveries
from tests.events import claimed, finished, new_id, running, submitted

URL = "https://hooks.example.com/done"
POLICY = WebhookPolicy(hosts=[AllowedHost.parse("hooks.example.com")], default_secrets=[b"x" * 32])
DELIVERED = Attempt(outcome=Outcome.DELIVERED, reason="")


@define
class Sender:
    """A receiver that answers at once, or never while `hangs` is set."""

    hangs: bool = False
    sent: list[str] = field(factory=list)
    called: anyio.Event = field(factory=anyio.Event)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        self.sent.append(headers["webhook-id"])
        self.called.set()
        if self.hangs:
            await anyio.sleep_forever()
        return DELIVERED


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    async with await EmbeddedLog.open(tmp_path / "log") as log:
        yield log


async def deliveries(log: EmbeddedLog, sender: Sender, tmp_path: Path) -> WebhookDeliveries:
    return WebhookDeliveries(
        log=log,
        blobs=await FileBlobs.open(tmp_path / "blobs"),
        sender=sender,
        policy=POLICY,
        shows_tenant=False,
        corrupt_logs=CorruptLogReporter(),
    )


async def accept(log: EmbeddedLog) -> str:
    execution, event = new_id(), submitted()
    event = evolve(event, spec=evolve(event.spec, webhook_url=URL))
    await log.append(execution, 0, [event, claimed(), running()])
    return execution


async def until_delivered(log: EmbeddedLog) -> None:
    with fail_after(10):
        found = await log.webhooks()
        while found.receivers:
            found = await log.webhooks(found.version)


async def test_each_end_is_delivered_once_and_not_before(log: EmbeddedLog, tmp_path: Path) -> None:
    sender = Sender()
    service = await deliveries(log, sender, tmp_path)
    early = await accept(log)
    await log.append(early, 3, [finished()])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run, name="deliver")
        await until_delivered(log)
        late = await accept(log)
        other = new_id()
        await log.append(other, 0, [submitted(), claimed(), running(), finished()])
        await wait_all_tasks_blocked()
        assert sender.sent == [early]
        await log.append(late, 3, [finished()])
        await until_delivered(log)
        await wait_all_tasks_blocked()
        assert (sender.sent, service.waiting) == ([early, late], 0)
        tasks.cancel_scope.cancel()


async def test_a_leader_that_dies_during_an_attempt_leaves_it_to_the_next(
    log: EmbeddedLog, tmp_path: Path
) -> None:
    sender = Sender(hangs=True)
    service = await deliveries(log, sender, tmp_path)
    execution = await accept(log)
    await log.append(execution, 3, [finished()])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run, name="first leader")
        with fail_after(10):
            await sender.called.wait()
        assert service.waiting == 1
        tasks.cancel_scope.cancel()
    assert (service.waiting, sender.sent) == (0, [execution])
    sender.hangs = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run, name="next leader")
        await until_delivered(log)
        tasks.cancel_scope.cancel()
    assert sender.sent == [execution, execution]


async def test_a_webhook_of_a_deleted_execution_is_removed(log: EmbeddedLog, tmp_path: Path) -> None:
    execution = await accept(log)
    log._thread._store._db.execute("DELETE FROM events")
    log._thread._store._db.execute("DELETE FROM executions")
    log._lengths.clear()
    sender = Sender()
    service = await deliveries(log, sender, tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run, name="deliver")
        await until_delivered(log)
        tasks.cancel_scope.cancel()
    assert sender.sent == []
    assert execution not in (await log.webhooks()).receivers
