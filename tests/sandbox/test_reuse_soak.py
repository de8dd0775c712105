"""Test that nothing is left and nothing grows while sandboxes run 100,000 programs, or PYEXEC_SOAK_RUNS."""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field, frozen

from tests.sandbox.reuse_programs import CLEAN, DIRTY, STATE
from tests.support.api import Api, api_of
from tests.support.attack import COMPLETED, NARROW, OUT_OF_MEMORY, TIMEOUT, end_of
from tests.support.leftovers import check_pool_full, descriptors, remains
from tests.support.metrics import figures
from tests.support.server import Server, running_server

RUNS = int(os.environ.get("PYEXEC_SOAK_RUNS", "100000"))
WARM_UP_RUNS = min(2_000, RUNS // 4)
SECONDS_PER_RUN_MAX = 0.5
AT_ONCE, POOL = 4, 4
RETENTION_SECONDS = 30
MIB = 1024 * 1024
GROWTH_MIB_MAX = 32
"""The server's memory varies with what its allocator keeps. A leak of one KiB in each run would add 100 MiB."""
SETTINGS = {
    **NARROW,
    "run_network": "none",
    "setup_network": "none",
    "warm_pool": str(POOL),
    "max_concurrent": str(AT_ONCE),
    "default_disk_mb": "64",
    "cleanup_ttl": str(RETENTION_SECONDS),
}

PROGRAMS: Mapping[str, tuple[str, str]] = {
    "hello": ("print('hello')", "hello\n"),
    "files": (
        "import os\nfor n in range(20): open(f'file-{n}', 'w').write('x' * 5000)\nprint(len(os.listdir('.')))",
        "21\n",
    ),
    "temporary files": (
        "import tempfile\nprint(len(tempfile.mkdtemp()) > 0, len(tempfile.mkdtemp(dir='/dev/shm')) > 0)",
        "True True\n",
    ),
    "children": (
        "import subprocess\nprint(subprocess.check_output(['echo', 'child']).decode())",
        "child\n\n",
    ),
    "threads": (
        "import threading\nts = [threading.Thread(target=int) for _ in range(8)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]; print(threading.active_count())",
        "1\n",
    ),
    "memory": ("print(len(bytearray(40 << 20)))", f"{40 << 20}\n"),
    "output": ("print('x' * 100_000)", "x" * 100_000 + "\n"),
    "standard library": (
        "import json, decimal, re, sqlite3; print(json.dumps({'a': [1, 2]}))",
        '{"a": [1, 2]}\n',
    ),
    "exception": ("print('before'); 1 / 0", "before\n"),
    "exit code": ("print('three'); raise SystemExit(3)", "three\n"),
}
"""Usual programs, with what each prints."""


@frozen(kw_only=True)
class Usage:
    """Resources that the server holds while it is idle."""

    memory_bytes: int
    descriptors: Counter[str]
    threads: int


@define
class Corpus:
    """Runs programs in random order, and checks what each finds and how it ends."""

    state: dict[str, Any] = field(factory=dict)
    """What the first program found in its sandbox."""

    async def run_next(self, api: Api, choice: random.Random) -> None:
        number = choice.random()
        if number < 0.1:
            found = json.loads((await api.run(STATE))["stdout"])["state"]
            assert found == (self.state or found)
            self.state = found
        elif number < 0.2:
            name = choice.choice(list(CLEAN))
            assert (await api.run(CLEAN[name]))["status"] == "completed", name
        elif number < 0.205:
            name = choice.choice(list(DIRTY))
            assert end_of(await api.run(DIRTY[name])) == COMPLETED, name
        elif number < 0.21:
            assert end_of(await api.run("held = bytearray(1 << 30)")) == OUT_OF_MEMORY
        elif number < 0.22:
            assert end_of(await api.run("while True: pass", config={"timeout_seconds": 0.2})) == TIMEOUT
        else:
            source, expected = choice.choice(list(PROGRAMS.values()))
            result = await api.run(source)
            assert (result["status"], result["stdout"]) == ("completed", expected), (source, result)


@pytest.fixture
def own(image: str, tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path / "data", image, **SETTINGS) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert "left behind" not in log, log


@pytest.mark.soak
async def test_a_hundred_thousand_programs_leave_nothing(own: Server) -> None:
    corpus = Corpus()
    with anyio.fail_after(60 + RUNS * SECONDS_PER_RUN_MAX):
        await run_many(own.url, corpus, WARM_UP_RUNS)
        before = await usage(own)
        await run_many(own.url, corpus, RUNS - WARM_UP_RUNS)
        after = await usage(own)
    returned = await figures(own.url)
    reused = returned("pyexec_sandbox_returns_total", result="reused")
    assert reused > 0.9 * RUNS
    assert (after.memory_bytes - before.memory_bytes) / MIB < GROWTH_MIB_MAX
    assert (after.descriptors - before.descriptors).total() <= 2 * AT_ONCE
    assert after.threads <= before.threads + 2 * AT_ONCE


async def usage(server: Server) -> Usage:
    """Wait until the pool is full and all executions are deleted, and check that nothing else is left."""
    async with api_of(server.url) as api:
        await check_pool_full(server, api, POOL)
        with anyio.fail_after(RETENTION_SECONDS * 10):
            while await api.newest() is not None:
                await anyio.lowlevel.checkpoint()
        assert (await remains(server, api)).files == frozenset()
    return Usage(
        memory_bytes=resident_bytes(server.process.pid),
        descriptors=Counter(str(link).partition(":")[0] for link in descriptors(server)),
        threads=len(os.listdir(f"/proc/{server.process.pid}/task")),
    )


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def run_many(url: str, corpus: Corpus, count: int) -> None:
    """Run `count` programs, a few at once, and close all connections."""
    seeds = iter(range(count))

    async def client() -> None:
        async with api_of(url) as api:
            for seed in seeds:
                await corpus.run_next(api, random.Random(seed))

    async with anyio.create_task_group() as tasks:
        for number in range(AT_ONCE):
            tasks.start_soon(client, name=f"client {number}")
