"""Test a server that is killed, and another one on the same data: every accepted execution ends."""

import signal
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from tests.support.api import api_of
from tests.support.archives import script
from tests.support.containers import containers, deployment_of, remove, until_containers
from tests.support.leftovers import check_pool_full, remains
from tests.support.metrics import until_figures
from tests.support.server import Server, running_server

pytestmark = pytest.mark.independent

ONE_SLOT = {"max_concurrent": "1", "warm_pool": "1"}
SHOW_SANDBOX = "print(open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19])\n"
"""Prints when the sandbox was started, which no other one has."""
FOREVER = "import time\nprint('on', flush=True)\ntime.sleep(3600)"


def crash(server: Server) -> None:
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


@pytest.mark.claims
async def test_a_new_server_continues_pending_and_running_executions(image: str, tmp_path: Path) -> None:
    """The running one is in a sandbox that has run another program before, whose output stays apart."""
    key = {"Idempotency-Key": "over the crash"}
    with running_server(tmp_path / "data", image, **ONE_SLOT) as first:
        async with api_of(first.url) as api:
            done = await api.run(SHOW_SANDBOX)
            running = await api.accepted(SHOW_SANDBOX + FOREVER)
            await api.until_printed(running, b"on")
            waiting = [await api.accepted(f"print('waited', {n})") for n in range(3)]
            keyed = (await api.submit(script("print('once')"), headers=key)).document["execution_id"]
            killed = await api.accepted("print('never')")
            await api.kill(killed)
            # The server dies during an upload. The next server keeps nothing of the upload.
            partial = first.data_dir / "blobs" / ".partial-0123456789abcdef"
            partial.write_bytes(b"half")
        old = set(await containers(deployment_of(first.data_dir)))
        crash(first)
    assert old
    with running_server(tmp_path / "data", image, **ONE_SLOT) as second:
        async with api_of(second.url) as api:
            assert (await api.get(f"/api/v1/executions/{running}")).document["status"] == "running"
            assert (await api.kill(running)).document == {"status": "killed"}
            result = await api.ended(running)
            assert (result["status"], result["stdout"]) == ("killed", done["stdout"] + "on\n")
            for n, execution_id in enumerate(waiting):
                assert (await api.ended(execution_id))["stdout"] == f"waited {n}\n"
            again = await api.submit(script("print('once')"), headers=key)
            assert again.document["execution_id"] == keyed
            assert (await api.ended(keyed))["stdout"] == "once\n"
            assert (await api.ended(killed))["status"] == "killed"
            assert (await api.get(f"/api/v1/executions/{done['execution_id']}")).document == done
            names = [event.name for event in await api.all_events(running)]
            assert names.count("running") == 1
            assert names[-1] == "killed"
            assert partial not in (await remains(second, api)).files
            await check_pool_full(second, api, 1)
        assert old.isdisjoint(await containers(deployment_of(second.data_dir)))


@pytest.mark.claims
async def test_a_stopping_server_lets_programs_finish_and_removes_containers(
    image: str, tmp_path: Path
) -> None:
    """A caller that waits for a slot gets 503: its program would start during the shutdown, and be lost.

    A second SIGTERM, which Nomad can send, does not end the wait for the program."""
    with running_server(tmp_path / "data", image, **ONE_SLOT, stop_timeout="30") as first:
        async with api_of(first.url) as api, anyio.create_task_group() as callers:
            quick = await api.accepted("import time; print('on', flush=True); time.sleep(3); print('end')")
            await api.until_printed(quick, b"on")
            waiting = await api.accepted("print('later')")
            answers, answered = [], anyio.Event()

            async def call() -> None:
                answers.append(await api.sync(script("import time; time.sleep(3)")))
                answered.set()

            callers.start_soon(call, name="a caller that waits for a slot")
            await until_figures(api.url, lambda f: f("pyexec_queue_length") == 2)
            first.process.send_signal(signal.SIGTERM)
            await answered.wait()
            assert await to_thread.run_sync(first.stop) == 0
        assert [(answer.status, answer.document["code"]) for answer in answers] == [(503, "unavailable")]
        assert await containers(deployment_of(first.data_dir)) == set()
    with running_server(tmp_path / "data", image, **ONE_SLOT) as second:
        async with api_of(second.url) as api:
            assert (await api.ended(quick))["stdout"] == "on\nend\n"
            assert (await api.ended(waiting))["stdout"] == "later\n"
            assert len((await api.get("/api/v1/executions")).document["executions"]) == 2


async def test_a_program_is_lost_that_outlives_the_stop_timeout_or_its_sandbox(
    image: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with running_server(data, image, **ONE_SLOT, stop_timeout="0.5") as first:
        async with api_of(first.url) as api:
            stopped = await api.accepted(FOREVER)
            await api.until_printed(stopped, b"on")
        assert first.stop() == 0
        assert await containers(deployment_of(data)) == set()
        *_, lost, last = first.log.read_text().splitlines()
        assert (
            f"WARNING pyexec.services.shutdown: shutdown: {stopped} is lost: the server shut down while"
            in lost
        )
        assert last.endswith("INFO pyexec.server: stopped")
    with running_server(data, image, **ONE_SLOT | {"warm_pool": "0"}) as second:
        async with api_of(second.url) as api:
            result = await api.ended(stopped)
            assert (result["status"], result["error_type"], result["stdout"]) == ("failed", "lost", "on\n")
            crashed = await api.accepted(FOREVER)
            await api.until_printed(crashed, b"on")
        crash(second)
        (left,) = await until_containers(deployment_of(data), 1)
        await remove(left)
    with running_server(data, image, **ONE_SLOT) as third:
        async with api_of(third.url) as api:
            result = await api.ended(crashed)
            assert (result["status"], result["error_type"]) == ("failed", "lost")
            assert "may have run" in result["error"]
            assert (await api.run("print('hello')"))["stdout"] == "hello\n"
