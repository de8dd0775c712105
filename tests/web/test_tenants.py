"""Tenants over HTTP: a token reads and kills only what its tenant ran, and a flood does not delay another tenant."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from tests.events import new_id
from tests.support.api import Api, api_of
from tests.support.archives import script
from tests.support.metrics import figures, until_figures
from tests.support.server import Server, running_server
from tests.support.tenants import append_execution, as_token, tenants_file
from tests.web.in_process import Web, running_web

FOREVER = "import time\nprint('on', flush=True)\ntime.sleep(3600)"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path, tenants_file=tenants_file(tmp_path)) as web:
        yield web


@pytest.mark.parametrize("ended", [True, False])
async def test_an_execution_of_another_tenant_does_not_exist(web: Web, ended: bool) -> None:
    execution = await append_execution(web.log, "a", ended=ended)
    paths = ["", "?wait=1", "/logs", "/logs?follow=1", "/events", "/files", "/files/x", "/timeline"]
    async with api_of(web.url, headers=as_token("token-b")) as api:
        unknown = new_id()
        missing = (await api.get(f"/api/v1/executions/{unknown}")).document
        for method, path in [("DELETE", ""), *(("GET", path) for path in paths)]:
            answer = await api.request(method, f"/api/v1/executions/{execution}{path}")
            assert answer.status == 404
            assert answer.document == {**missing, "error": missing["error"].replace(unknown, execution)}
        resumed = {"Last-Event-ID": "4.0"}
        assert (await api.get(f"/api/v1/executions/{execution}/events", headers=resumed)).status == 404
    for token in ("token-a", "second-a"):
        async with api_of(web.url, headers=as_token(token)) as api:
            found = await api.get(f"/api/v1/executions/{execution}")
            assert (found.status, found.document["tenant"]) == (200, "a")
            timeline = await api.get(f"/api/v1/executions/{execution}/timeline")
            assert (timeline.status, timeline.document["events"][0]["type"]) == (200, "submitted")


async def test_each_tenant_lists_its_own_executions_page_by_page(web: Web) -> None:
    own: dict[str, list[str]] = {"a": [], "b": []}
    for tenant in "abbbabaab":
        own[tenant].append(await append_execution(web.log, tenant))
    for tenant, executions in own.items():
        async with api_of(web.url, headers=as_token(f"token-{tenant}")) as api:
            listed, cursor = [], ""
            while cursor is not None:
                page = (await api.get(f"/api/v1/executions?limit=2{cursor}")).document
                assert len(page["executions"]) <= 2
                listed += [(each["execution_id"], each["tenant"]) for each in page["executions"]]
                cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
            assert listed == [(execution, tenant) for execution in reversed(executions)]


async def test_an_execution_from_before_there_were_tenants_belongs_to_default(tmp_path: Path) -> None:
    settings = {"tenants_file": tenants_file(tmp_path), "api_tokens": "old"}
    async with running_web(tmp_path, **settings) as web:
        execution = await append_execution(web.log, "default")
        for token, status in {"old": 200, "token-a": 404}.items():
            async with api_of(web.url, headers=as_token(token)) as api:
                assert (await api.get(f"/api/v1/executions/{execution}")).status == status


async def test_no_token_reads_an_execution_of_a_removed_tenant(web: Web) -> None:
    execution = await append_execution(web.log, "removed")
    for tenant in "abc":
        async with api_of(web.url, headers=as_token(f"token-{tenant}")) as api:
            assert (await api.get(f"/api/v1/executions/{execution}")).status == 404
            assert (await api.get("/api/v1/executions")).document["executions"] == []


async def test_the_error_for_a_corrupt_log_contains_nothing_of_it(web: Web) -> None:
    """The log may belong to another tenant."""
    execution = await append_execution(web.log, "a", ended=False)
    await web.log._thread.run(
        lambda store: store._db.execute(
            "UPDATE events SET event = ? WHERE execution_id = ?", (b"s3cret", execution)
        )
    )
    async with api_of(web.url, headers=as_token("token-b")) as api:
        for path in ("", "/timeline"):
            answer = await api.get(f"/api/v1/executions/{execution}{path}")
            assert (answer.status, answer.document["code"]) == (500, "corrupt_log")
            assert "s3cret" not in str(answer.document)


async def test_without_tokens_no_answer_names_a_tenant(tmp_path: Path) -> None:
    async with running_web(tmp_path) as web, api_of(web.url) as api:
        execution = await append_execution(web.log, "default")
        documents = [
            (await api.get(f"/api/v1/executions/{execution}")).document,
            (await api.get("/api/v1/executions")).document["executions"][0],
            (await api.all_events(execution))[-1].data,
        ]
        assert all("tenant" not in document for document in documents)


@pytest.fixture(scope="module")
def shared(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("tenants")
    settings = {"max_concurrent": "2", "warm_pool": "1", "log_format": "json"}
    with running_server(
        directory / "data", image, tenants_file=tenants_file(directory), **settings
    ) as server:
        yield server


@pytest.fixture
async def clients(shared: Server) -> AsyncIterator[dict[str, Api]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(api_of(shared.url, headers=as_token(f"token-{name}")))
            for name in "abc"
        }


async def test_equal_idempotency_keys_of_two_tenants_are_independent(clients: dict[str, Api]) -> None:
    headers = {"Idempotency-Key": "common"}
    of_a = await clients["a"].eval({"code": "print('a')"}, headers=headers)
    of_b = await clients["b"].eval({"code": "print('b')"}, headers=headers)
    assert (of_a.status, of_b.status) == (200, 200)
    assert (of_a.document["stdout"], of_b.document["stdout"]) == ("a\n", "b\n")
    again = await clients["b"].eval({"code": "print('b')"}, headers=headers)
    assert again.document == of_b.document


async def test_a_tenant_that_floods_the_queue_does_not_delay_another(
    clients: dict[str, Api], shared: Server
) -> None:
    a, b = clients["a"], clients["b"]
    holders = [await a.accepted(FOREVER) for _ in range(2)]
    for holder in holders:
        await a.until_printed(holder, b"on")
    flood = [await a.accepted(FOREVER) for _ in range(3)]
    refused = await a.submit(script("print()"))
    assert (refused.status, "max_queued of tenant a" in refused.document["error"]) == (429, True)
    results: list[dict[str, object]] = []

    async def run_b() -> None:
        results.append(await b.run("print('b')"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_b, name="sync request of the other tenant")
        await until_figures(
            shared.url, lambda now: now("pyexec_tenant_queue_length", tenant="b") == 1, "token-a"
        )
        await a.kill(holders[0])
    assert results[0]["stdout"] == "b\n"
    # One of the flood may hold the other slot by now, but the others still wait behind the other tenant's run.
    states = [(await a.get(f"/api/v1/executions/{each}")).document["status"] for each in flood]
    assert states.count("pending") >= 2
    for execution in [*holders, *flood]:
        await a.kill(execution)


async def test_a_tenant_at_its_limit_leaves_the_other_slots_free(
    clients: dict[str, Api], shared: Server
) -> None:
    capped = clients["c"]
    # The slot of an earlier run becomes free a moment after its answer.
    await until_figures(shared.url, lambda found: found("pyexec_slots_in_use") == 0, "token-b")
    holder = await capped.accepted(FOREVER)
    await capped.until_printed(holder, b"on")
    refused = await capped.sync(script("print()"))
    assert (refused.status, refused.document["code"]) == (429, "queue_full")
    assert "all slots of tenant capped (max_running: 1) are busy" in refused.document["error"]
    assert (await clients["b"].run("print('b')"))["stdout"] == "b\n"
    assert (await capped.kill(holder)).document == {"status": "killed"}
    after = await figures(shared.url, "token-b")
    assert after("pyexec_tenant_executions_ended_total", tenant="capped", status="killed") == 1
    log = shared.log.read_text()
    assert '"tenant": "capped"' in log
    assert "token-" not in log
