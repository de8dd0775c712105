"""The event log in Consul only: cost of an append, index, corrupt keys, and unusable addresses."""

import json
import logging
import os
import random
from pathlib import Path

import anyio
import pytest
from anyio import fail_after

from pyexec.adapters.consul.blobs import ConsulBlobs
from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV, Operation, create
from pyexec.adapters.consul.membership import Session
from pyexec.domain.events import Failed, FailureType
from pyexec.errors import Conflict, CorruptLog, SettingsError, TooLarge, Unavailable
from pyexec.ports import IdempotencyKey
from tests.contract.blobs import stream
from tests.contract.conftest import Parts
from tests.contract.test_index import WORDS
from tests.contract.test_watch import PATIENCE
from tests.events import START, claimed, finished, killed, new_id, nonce, running, submitted
from tests.support.consul import Agent, dev_agent

pytestmark = pytest.mark.service


async def contents(kv: ConsulKV, *folders: str) -> dict[str, bytes]:
    listings = [await kv.recurse(folder) for folder in folders]
    return {entry.key: entry.value for listing in listings for entry in listing.entries}


async def test_a_run_costs_two_transactions(parts: Parts) -> None:
    kv, _, log = parts
    execution, before = new_id(), dict(kv.request_counts)
    key = IdempotencyKey(key_hash="hash", fingerprint="print")
    await log.append(execution, 0, [submitted(), claimed(), running()], key=key)
    await log.append(execution, 3, [finished()])
    spent = {name: kv.request_counts[name] - before.get(name, 0) for name in kv.request_counts}
    # All other requests belong to the blocking query, which both appends wake.
    assert spent.pop("PUT txn") == 2
    assert set(filter(spent.get, spent)) <= {"GET kv"}
    assert list(await kv.keys(f"inflight/{execution}")) == []


async def test_the_completion_entry_says_how_it_ended(parts: Parts) -> None:
    kv, _, log = parts
    execution = new_id()
    await log.append(execution, 0, [submitted(), claimed(), running()])
    _, pending = await kv.get(f"status/{execution}")
    end = Failed(at=START, nonce=nonce(), error_type=FailureType.TIMEOUT, error="too long", exit_code=124)
    await log.append(execution, 3, [end])
    _, completed = await kv.get(f"status/{execution}")
    assert pending is not None
    assert completed is not None
    moment = "2026-01-01T00:00:00.000000Z"
    expected = {"version": 1, "execution_id": execution, "status": "pending", "created_at": moment}
    assert json.loads(pending.value) == expected
    assert json.loads(completed.value) == {
        "version": 1,
        "execution_id": execution,
        "status": "failed",
        "events": 4,
        "finished_at": moment,
        "exit_code": 124,
        "error_type": "timeout",
    }


def connections_to(port: int) -> int:
    """Count the established connections of this process to a local port."""
    files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    mine = {os.readlink(file) for file in files if os.path.lexists(file)}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    to_port = [row for row in rows if int(row[2].partition(":")[2], 16) == port and row[3] == "01"]
    return sum(f"socket:[{row[9]}]" in mine for row in to_port)


async def test_a_thousand_waiters_share_a_few_connections(parts: Parts, consul_agent: Agent) -> None:
    _, membership, log = parts
    executions = [new_id() for _ in range(100)]
    port = consul_agent.ports["http"]
    with fail_after(6 * PATIENCE):
        for execution in executions:
            await log.append(execution, 0, [submitted()])
        async with anyio.create_task_group() as waiters:
            version = (await membership.members()).version
            waiters.start_soon(membership.members, version, name="watcher of members")
            for number in range(1000):
                waiters.start_soon(log.wait, executions[number % 100], 1, name=f"waiter {number}")
            async with anyio.create_task_group() as reads:
                for execution in executions:
                    reads.start_soon(log.read, execution, name="read")
            assert 0 < connections_to(port) <= 20
            async with anyio.create_task_group() as ends:
                for execution in executions:
                    ends.start_soon(log.append, execution, 1, [killed()], name="end")
            await membership.leave()
        assert connections_to(port) <= 20


async def test_the_index_is_rebuilt_from_the_events(parts: Parts) -> None:
    kv, _, log = parts
    for number, word in enumerate(random.choices(WORDS, k=30)):
        key = IdempotencyKey(key_hash=f"hash-{number}", fingerprint="print") if number % 3 else None
        await log.append(new_id(), 0, word, key=key)
    gone = new_id()
    await log.append(gone, 0, WORDS[-1])
    await log.retire(gone)
    folders = "inflight/", "status/", "idempotency/"
    kept = await contents(kv, *folders)
    for entry_key in random.sample(sorted(kept.keys() - {"inflight/"}), k=len(kept) // 2):
        await kv.delete(entry_key)
    wrong = next(key for key in kept if key.startswith("status/"))
    await kv.put(wrong, b"nonsense")
    await kv.put(f"status/{new_id()}", b"of nothing")
    await kv.put(f"inflight/{new_id()}", b'{"length": 1, "state": "queued", "owner": null}')
    await log.rebuild_index()
    rebuilt = await contents(kv, *folders)
    assert {key: json.loads(value or b"null") for key, value in rebuilt.items()} == {
        key: json.loads(value or b"null") for key, value in kept.items()
    }


async def test_correct_index_entries_are_not_written(parts: Parts) -> None:
    kv, _, log = parts
    for number, word in enumerate(WORDS):
        key = IdempotencyKey(key_hash=f"right-{number}", fingerprint="print")
        await log.append(new_id(), 0, word, key=key)

    async def indexes() -> dict[str, int]:
        listings = [await kv.recurse(folder) for folder in ("inflight/", "status/", "idempotency/")]
        return {entry.key: entry.index for listing in listings for entry in listing.entries}

    before = await indexes()
    await log.rebuild_index()
    assert await indexes() == before


async def test_a_missing_index_entry_of_an_open_execution_is_restored(parts: Parts) -> None:
    kv, _, log = parts
    execution = new_id()
    await log.append(execution, 0, [submitted(), claimed()])
    await kv.delete(f"inflight/{execution}")
    await log.append(execution, 2, [running()])
    assert (await log.open_executions()).lengths == {execution: 3}
    await log.append(execution, 3, [finished()])
    with pytest.raises(Conflict):
        await log.append(execution, 4, [killed()])


@pytest.mark.parametrize(
    "damage",
    [
        Operation(verb="delete", key="events/000002"),
        Operation(verb="set", key="events/000002", value=b"\xff no event"),
        Operation(verb="set", key="events/000002", value=b'{"type": "finished.v99"}'),
        Operation(verb="set", key="events/foreign", value=b"{}"),
    ],
    ids=["missing number", "corrupt value", "unknown version", "foreign key"],
)
async def test_a_corrupt_log_affects_no_other_execution(parts: Parts, damage: Operation) -> None:
    kv, _, log = parts
    damaged, other = new_id(), new_id()
    for execution in (damaged, other):
        await log.append(execution, 0, [submitted(), claimed(), running()])
    key = f"executions/{damaged}/{damage.key}"
    await (kv.delete(key) if damage.value is None else kv.put(key, damage.value))
    with pytest.raises(CorruptLog):
        await log.read(damaged)
    assert (await log.rebuild_index()).keys() == {damaged}
    assert (await log.open_executions()).lengths == {damaged: 3, other: 3}
    await log.append(other, 3, [finished()])


@pytest.mark.parametrize("value", [b"foreign", b"[" * 100_000], ids=["no JSON", "nested too deeply"])
async def test_unrecognized_keys_are_logged_once_and_ignored(
    parts: Parts, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    kv, membership, log = parts
    execution, bad = new_id(), new_id()
    for key in ("inflight/foreign", f"inflight/{bad}", "status/foreign", f"status/{bad}", "replicas/foreign"):
        await kv.put(key, value)
    held = await Session.create(kv, "foreign", behavior="delete")
    assert await kv.put("replicas/held", value, session=held.id)
    assert "held" not in (await membership.members()).members
    await held.destroy()
    with caplog.at_level(logging.ERROR):
        await log.append(execution, 0, [submitted(), killed()])
        for _ in range(3):
            assert (await log.open_executions()).lengths == {}
            assert list(await log.list_ended(START.replace(year=2027), 10)) == [execution]
    named = [record.getMessage() for record in caplog.records]
    for key in ("inflight/foreign", f"inflight/{bad}", f"status/{bad}"):
        assert sum(key in text for text in named) == 1


async def test_a_transaction_over_the_limits_is_not_sent(parts: Parts) -> None:
    kv, _, log = parts
    execution = new_id()
    big = Failed(at=START, nonce=nonce(), error_type=FailureType.INTERNAL, error="x" * 400_000)
    before = kv.request_counts["PUT txn"]
    with pytest.raises(TooLarge, match="Consul"):
        await log.append(execution, 0, [submitted(), big])
    with pytest.raises(TooLarge, match="65 operations"):
        await kv.transaction([create(f"many/{number}", b"") for number in range(65)])
    assert kv.request_counts["PUT txn"] == before
    # Consul accepts a transaction just below the limit.
    value = b"x" * 280_000
    await kv.transaction([create("large", value)])
    _, entry = await kv.get("large")
    assert entry is not None
    assert entry.value == value


async def test_the_fence_rejects_members(parts: Parts) -> None:
    kv, membership, log = parts
    me = membership.fence().key.removeprefix("replicas/")
    execution = new_id()
    await log.append(execution, 0, [submitted(), claimed(me)], notify="rep_dead")
    with pytest.raises(Conflict, match=me):
        await log.append(execution, 2, [killed()], fence=me)
    await log.append(execution, 2, [killed()], fence="rep_dead")
    assert list(await kv.keys("inbox/rep_dead/")) == []


async def test_retiring_deletes_all_keys(parts: Parts) -> None:
    kv, membership, log = parts
    execution = new_id()
    await ConsulBlobs(kv, membership.fence).put(f"{execution}/payload", stream(b"x" * 600_000))
    key = IdempotencyKey(key_hash="hash", fingerprint="print")
    await log.append(execution, 0, [submitted(), killed()], key=key)
    await log.retire(execution)
    left = [
        key
        for folder in ("executions/", "inflight/", "status/", "idempotency/")
        for key in await kv.keys(folder)
    ]
    assert left == ["inflight/"]


@pytest.mark.parametrize(
    "address", ["", "nowhere", "http://", "ftp://a:1", "a:b", "http://a:1/path", "1.2.3.4:99999"]
)
def test_an_invalid_address_is_a_settings_error(address: str) -> None:
    with pytest.raises(SettingsError, match="PYEXEC_CONSUL_ADDR"):
        ConsulConfig(address=address).url()


@pytest.mark.parametrize("prefix", ["/", "//"])
async def test_a_prefix_of_slashes_is_a_settings_error(prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"PYEXEC_CONSUL_PREFIX is '/+'; allowed: "):
        ConsulKV(ConsulConfig(address="127.0.0.1:1", prefix=prefix))


async def test_an_unreachable_address_is_unavailable() -> None:
    async with ConsulKV(ConsulConfig(address="127.0.0.1:1")) as kv:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await kv.get("key")


async def test_another_server_at_the_address_is_reported(s3_server: None) -> None:
    address = os.environ["AWS_ENDPOINT"]
    async with ConsulKV(ConsulConfig(address=address)) as kv:
        for asking in (kv.get("key"), kv.put("key", b""), kv.transaction([create("key", b"")])):
            with pytest.raises(Unavailable, match="Consul"):
                await asking


async def test_a_token_without_rights_is_reported(tmp_path: Path) -> None:
    acl = {
        "enabled": True,
        "default_policy": "deny",
        "tokens": {"master": "00000000-0000-0000-0000-000000000001"},
    }
    with dev_agent(tmp_path, acl=acl) as agent:
        without = ConsulConfig(address=agent.address, prefix="ours", token=None)
        async with ConsulKV(without) as kv:
            for asking in (kv.get("key"), kv.put("key", b""), kv.transaction([create("key", b"")])):
                with pytest.raises(Unavailable, match="has no permission for ours/key"):
                    await asking
            with pytest.raises(Unavailable, match="has no permission for a session"):
                await kv.create_session("name", behavior="delete", ttl_seconds=10)
        token = str(acl["tokens"]["master"])  # type: ignore[index]
        async with ConsulKV(ConsulConfig(address=agent.address, prefix="ours", token=token)) as kv:
            assert await kv.put("key", b"value")
