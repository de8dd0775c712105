"""Test `/ready`: it names the reason while a server shuts down, has lost its Consul session, cannot write, or waits for
a disk that hangs."""

import os
import signal
import subprocess
import threading
from asyncio import gather
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyexec.errors import Unavailable
from pyexec.services.replica_state import failed_checks
from pyexec.settings_parser import read_settings
from pyexec.wiring.checks import build_checks
from tests.support.api import api_of, until_not_ready, until_ready, until_unready_for
from tests.support.consul import durable_agent
from tests.support.metrics import figures, until_figures
from tests.support.server import running_server


async def test_a_stopping_server_is_not_ready_and_refuses_work(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, warm_pool="0", stop_timeout="60") as server:
        async with api_of(server.url) as api:
            execution = await api.accepted("import time; print('up', flush=True); time.sleep(60)")
            await api.until_printed(execution, b"up")
            assert (await api.get("/ready")).status == 200
            server.process.send_signal(signal.SIGTERM)
            assert "shutting down" in (await until_not_ready(api))["server"]
            assert (await api.get("/health")).status == 200
            refused = await api.eval({"code": "1"})
            assert (refused.status, "shutting down" in refused.document["error"]) == (503, True)
            assert (await api.kill(execution)).document == {"status": "killed"}
        assert server.process.wait(60) == 0


async def test_a_replica_without_consul_is_not_ready(image: str, tmp_path: Path) -> None:
    with durable_agent(tmp_path / "consul") as agent:
        settings = {"consul_addr": agent.address, "warm_pool": "0", "stop_timeout": "1"}
        with running_server(tmp_path / "data", image, **settings) as server:
            async with api_of(server.url) as api:
                before = await until_figures(api.url, lambda now: now("pyexec_leader") == 1)
                assert (before("pyexec_member"), before("pyexec_limits_proven")) == (1, 1)
                assert before("pyexec_consul_requests_total", method="PUT", endpoint="session") >= 2
                assert before("pyexec_consul_errors_total", kind="unreachable") == 0
                agent.kill()
                reasons = await until_not_ready(api)
                assert "Consul" in reasons["event log"]
                assert "Consul session lost" in await until_unready_for(api, "membership")
                away = await until_figures(api.url, lambda now: now("pyexec_leader") == 0)
                assert away("pyexec_member") == 0
                assert away("pyexec_consul_errors_total", kind="unreachable") > 0
                assert away("pyexec_event_log_errors_total", operation="check", kind="unavailable") > 0
                agent.start()
                agent.wait_ready()
                await until_ready(api)
                assert (await figures(api.url))("pyexec_member") == 1
                assert (await api.run("print(1)"))["stdout"] == "1\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def data_dir_check(path: Path) -> Callable[[], Awaitable[None]]:
    settings = read_settings({"PYEXEC_DATA_DIR": str(path)})
    shared: Any = SimpleNamespace(settings=settings, slots=None, stores=SimpleNamespace(membership=None))
    engine: Any = SimpleNamespace(check=None)
    return build_checks(shared, engine)["data directory"]


async def test_a_server_that_cannot_write_is_not_ready(small_disk: Path) -> None:
    check = data_dir_check(small_disk)
    await check()
    assert os.listdir(small_disk) == []
    (small_disk / "filler").write_bytes(bytes(1000 * 1024))
    with pytest.raises(
        Unavailable, match=r"cannot write to PYEXEC_DATA_DIR \(.*/disk\): No space left on device"
    ):
        await check()


async def test_checks_of_a_hanging_disk_end_in_time_and_take_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr("pyexec.wiring.checks.try_write", lambda _: answers.wait())
    checks = {"data directory": data_dir_check(tmp_path)}
    threads = threading.active_count()
    try:
        found = await gather(*(failed_checks(checks, 0.2) for _ in range(10)))
        assert found == [{"data directory": "timed out after 0.2 s"}] * 10
        assert threading.active_count() == threads + 1
    finally:
        answers.set()
    assert await failed_checks(checks, 20) == {}
