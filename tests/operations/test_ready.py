"""Test `/ready`: it names the reason while a server shuts down, has lost its Consul session, cannot write, or waits for
a disk that hangs."""

import os
import signal
import subprocess
from asyncio import gather
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from pyexec.errors import Unavailable
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


async def test_a_server_that_cannot_write_is_not_ready(small_disk: Path) -> None:
    settings = read_settings({"PYEXEC_DATA_DIR": str(small_disk)})
    shared: Any = SimpleNamespace(settings=settings, slots=None, stores=SimpleNamespace(membership=None))
    engine: Any = SimpleNamespace(check=None)
    check = build_checks(shared, engine)["data directory"]
    await check()
    assert os.listdir(small_disk) == []
    (small_disk / "filler").write_bytes(bytes(1000 * 1024))
    with pytest.raises(
        Unavailable, match=r"cannot write to PYEXEC_DATA_DIR \(.*/disk\): No space left on device"
    ):
        await check()


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that `frozen` can freeze."""
    disk, file = tmp_path / "disk", tmp_path / "disk.img"
    disk.mkdir()
    with file.open("wb") as image:
        image.truncate(64 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", file], check=True)
    subprocess.run(["mount", "-o", "loop", file, disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Let every write to the disk hang."""
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)


async def test_a_server_whose_disk_hangs_is_not_ready(image: str, slow_disk: Path) -> None:
    with running_server(slow_disk, image, warm_pool="0") as server:
        tasks = f"/proc/{server.process.pid}/task"
        async with api_of(server.url) as api:
            await until_ready(api)
            threads = len(os.listdir(tasks))
            with frozen(slow_disk), anyio.fail_after(20):
                answers = await gather(*(api.get("/ready") for _ in range(10)))
                assert len(os.listdir(tasks)) <= threads + 1
            for answer in answers:
                assert (answer.status, "data directory" in answer.document["reasons"]) == (503, True)
            await until_ready(api)
