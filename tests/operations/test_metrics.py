"""Test the metrics: they change with each kind of outcome, and contain no input of callers."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyexec.correlation import MODES
from pyexec.web.middleware import MODE_OF_ROUTE
from tests.support.api import Api, api_of, pause
from tests.support.archives import script
from tests.support.metrics import figures, until_figures
from tests.support.server import NETWORKS, Server, running_server
from tests.web.in_process import running_web

ENDED = "pyexec_executions_ended_total"
NARROW = {"memory_mb": 64, "disk_mb": 16}
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture(scope="module")
def measured(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with one slot, so that a second run waits."""
    settings = {
        **NETWORKS,
        "max_concurrent": "1",
        "warm_pool": "1",
        "queue_timeout": "3",
        "max_output_bytes": "100000",
        "default_memory_mb": "64",
        "default_disk_mb": "16",
    }
    with running_server(tmp_path_factory.mktemp("measured") / "data", image, **settings) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
async def api(measured: Server) -> AsyncIterator[Api]:
    async with api_of(measured.url) as client:
        yield client


def test_every_mode_has_series_from_the_start() -> None:
    assert {*MODE_OF_ROUTE.values(), "none"} == set(MODES)


@pytest.mark.parametrize(
    ("source", "metadata", "status", "error_type"),
    [
        ("print(1)", {}, "completed", ""),
        ("raise ValueError", {}, "completed", ""),
        ("import time; time.sleep(60)", {"config": {"timeout_seconds": 0.5}}, "failed", "timeout"),
        ("x = b'1' * (200 << 20)", {}, "failed", "out_of_memory"),
        ("print('x' * 200_000)", {}, "failed", "output_limit"),
        ("print(1)", {"docker_image": "localhost:1/nothing:1"}, "failed", "image_unavailable"),
    ],
)
async def test_every_end_of_a_synchronous_run_is_counted_once(
    api: Api, source: str, metadata: Any, status: str, error_type: str
) -> None:
    before = await figures(api.url)
    result = await api.run(source, **metadata)
    after = await figures(api.url)
    assert (result["status"], result.get("error_type") if error_type else "") == (status, error_type)
    labels = frozenset({("mode", "sync"), ("status", status), ("error_type", error_type)})
    assert after.since(before, ENDED) == {(ENDED, labels): 1}
    assert after("pyexec_execution_seconds_count", mode="sync") > before(
        "pyexec_execution_seconds_count", mode="sync"
    )


async def test_eval_and_async_are_counted_separately(api: Api) -> None:
    before = await figures(api.url)
    await api.eval({"code": "1"})
    await api.ended(await api.accepted("print(1)"))
    after = await figures(api.url)
    assert after(ENDED, mode="eval", status="completed", error_type="") == 1 + before(
        ENDED, mode="eval", status="completed", error_type=""
    )
    assert after(ENDED, mode="async", status="completed", error_type="") == 1 + before(
        ENDED, mode="async", status="completed", error_type=""
    )


async def test_steps_phases_and_bytes_of_a_run(api: Api) -> None:
    before = await figures(api.url)
    archive = script("print('x' * 999)")
    await api.sync(archive)
    after = await figures(api.url)
    grown = after.since(before, "pyexec_")
    for step in ("slot", "sandbox", "upload", "first_commit", "program", "terminal_commit"):
        assert grown["pyexec_step_seconds_count", frozenset({("step", step)})] == 1, step
    for phase in ("queue", "setup", "run"):
        assert grown["pyexec_execution_phase_seconds_count", frozenset({("phase", phase)})] == 1, phase
    assert grown["pyexec_upload_bytes_total", frozenset()] == len(archive)
    assert grown["pyexec_output_bytes_total", frozenset()] == 1000
    assert grown["pyexec_event_log_seconds_count", frozenset({("operation", "append")})] >= 2
    for event in ("submitted", "claimed", "running", "finished"):
        assert grown["pyexec_events_appended_total", frozenset({("event", event)})] == 1
    taken = {key: value for key, value in grown.items() if key[0] == "pyexec_pool_takes_total"}
    assert sum(taken.values()) == 1
    route = frozenset({("method", "POST"), ("route", "/api/v1/exec/sync"), ("status", "200")})
    assert grown["pyexec_http_requests_total", route] == 1


async def test_closing_a_stream_after_the_last_event_is_no_disconnect(api: Api) -> None:
    before = await figures(api.url)
    for _ in range(8):
        accept = {"Accept": "text/event-stream"}
        async with api.session.post("/api/v1/eval", json={"code": "1"}, headers=accept) as answer:
            async for line in answer.content:
                if line.startswith(b"event: finished"):
                    break
    execution_id = await api.accepted("print(1)")
    await api.ended(execution_id)
    async with api.session.get(f"/api/v1/executions/{execution_id}/logs?follow=1") as answer:
        assert await answer.read() == b"1\n"
    await api.run("print(1)")  # in the only slot, after all of them
    grown = (await figures(api.url)).since(before, "pyexec_http_requests_total")
    statuses = {dict(labels)["status"] for _, labels in grown}
    assert statuses == {"200", "202"}, grown


async def test_slots_queue_timeouts_and_kills_are_counted(api: Api) -> None:
    before = await figures(api.url)
    running = await api.accepted(SLEEP)
    await api.until_printed(running, b"up")
    busy = await figures(api.url)
    assert (busy("pyexec_slots"), busy("pyexec_slots_in_use"), busy("pyexec_executions_live")) == (1, 1, 1)
    assert 0 < busy("pyexec_memory_reserved_bytes") <= busy("pyexec_memory_budget_bytes")

    waiting = await api.accepted("print(1)")
    assert (await api.kill(waiting)).document == {"status": "killed"}
    late = await api.run("print(1)")
    assert late["error_type"] == "queue_timeout"
    assert (await api.kill(running)).document == {"status": "killed"}
    ended = (await figures(api.url)).since(before, ENDED)
    assert ended == {
        (ENDED, frozenset({("mode", "none"), ("status", "killed"), ("error_type", "")})): 1,
        (ENDED, frozenset({("mode", "sync"), ("status", "failed"), ("error_type", "queue_timeout")})): 1,
        (ENDED, frozenset({("mode", "async"), ("status", "killed"), ("error_type", "")})): 1,
    }


async def test_a_waiting_sync_run_counts_in_the_queue_length(api: Api) -> None:
    running = await api.accepted(SLEEP)
    await api.until_printed(running, b"up")
    async with anyio.create_task_group() as callers:
        callers.start_soon(api.run, "print(1)")
        await until_figures(api.url, lambda now: now("pyexec_queue_length") == 1)
        await api.kill(running)


async def test_waiting_async_executions_count_in_queue_length_or_backlog(api: Api) -> None:
    running = await api.accepted(SLEEP)
    await api.until_printed(running, b"up")
    waiting = [await api.accepted("print(1)") for _ in range(3)]
    await until_figures(api.url, lambda now: now("pyexec_queue_length") + now("pyexec_backlog") == 3)
    for execution in [*waiting, running]:
        await api.kill(execution)
    await until_figures(api.url, lambda now: now("pyexec_backlog") == 0)


async def test_a_setup_that_fails(api: Api) -> None:
    before = await figures(api.url)
    result = await api.run("print(1)", pre_commands=[f"exit 3 # {secrets.token_hex(8)}"])
    assert result["error_type"] == "setup_failed"
    after = await figures(api.url)
    failed = {"mode": "sync", "status": "failed", "error_type": "setup_failed"}
    assert after.since(before, ENDED) == {(ENDED, frozenset(failed.items())): 1}
    assert after.since(before, "pyexec_environment_builds") == {
        ("pyexec_environment_builds_total", frozenset({("result", "failed")})): 1
    }


async def test_disconnects_and_refused_requests_are_counted(api: Api) -> None:
    before = await figures(api.url)
    assert (await api.sync(b"no tar at all" * 100)).status in (400, 415)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(api.run, SLEEP, name="run that is cancelled")
        while not (await api.get("/api/v1/executions?status=running")).document["executions"]:
            await pause()
        tasks.cancel_scope.cancel()
    refused = "pyexec_http_requests_total"
    gone = {"method": "POST", "route": "/api/v1/exec/sync", "status": "499"}
    killed = {"mode": "sync", "status": "killed", "error_type": ""}
    after = await until_figures(api.url, lambda now: now(refused, **gone) > 0 and now(ENDED, **killed) > 0)
    assert any(dict(labels).get("status") in ("400", "415") for _, labels in after.since(before, refused))


async def test_labels_contain_no_input_of_callers(api: Api, measured: Server) -> None:
    secret = f"x{secrets.token_hex(8)}"
    await api.request("GET", f"/{secret}/{secret}")
    await api.request("GET", f"/api/v1/executions/{secret}?wait={secret}")
    async with api.session.request(secret.upper(), "/health") as answer:
        assert answer.status in (400, 404, 405)
    await api.run(
        f"class {secret}(Exception): ...\nraise {secret}", env_vars=[f"{secret}=1"], script_args=[secret]
    )
    await api.run("print(1)", docker_image=f"localhost:1/{secret}:1")
    async with api.session.get("/metrics") as answer:
        text = await answer.text()
    assert "\npyexec_build_info{" in text
    assert secret.lower() not in text.lower()
    assert "exe_" not in text
    assert text.count("\n") < 1500


async def test_metrics_need_a_token_if_one_is_set(tmp_path: Path) -> None:
    async with running_web(tmp_path, api_tokens="one,two") as web, api_of(web.url) as api:
        assert (await api.get("/metrics")).status == 401
        async with api.session.get("/metrics", headers={"Authorization": "Bearer two"}) as answer:
            assert answer.status == 200
            assert "\npyexec_" in await answer.text()
        assert (await api.get("/ready")).status == 200


@pytest.mark.full
async def test_an_adopted_run_is_counted(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, warm_pool="0", default_memory_mb="64") as first:
        async with api_of(first.url) as api:
            execution = await api.accepted("import time; print('up', flush=True); time.sleep(3)")
            await api.until_printed(execution, b"up")
        first.process.kill()
        first.process.wait()
    with running_server(tmp_path / "data", image, warm_pool="0") as second:
        async with api_of(second.url) as api:
            assert (await api.ended(execution))["status"] == "completed"
        after = await figures(second.url)
    assert after("pyexec_events_appended_total", event="adopted") == 1
    assert after(ENDED, mode="async", status="completed", error_type="") == 1
