"""Attack a small server, and check that only the attacking program is affected."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field

from tests.support.api import Api
from tests.support.archives import tar_of
from tests.support.containers import deployment_of, until_at_most
from tests.support.metrics import until_figures
from tests.support.server import NETWORKS, Server

POOL, SLOTS = 1, 3
NARROW = {
    **NETWORKS,
    "warm_pool": str(POOL),
    "max_concurrent": str(SLOTS),
    "default_timeout": "20",
    "default_memory_mb": "64",
    "default_disk_mb": "16",
    "pids_max": "64",
    "max_output_bytes": str(1024 * 1024),
    "max_total_memory_mb": "1500",
    "max_memory_mb": "128",
    "max_disk_mb": "64",
    "max_files_mb": "4",
}
"""Small limits, so that little of this machine is used if a limit does not hold."""
BRIEF = {"timeout_seconds": 1}
ANSWER_SECONDS = 10
PAUSE_SECONDS = 0.25

TIMEOUT = ("failed", "timeout", 124)
CPU_LIMIT = ("failed", "cpu_limit", 124)
OUT_OF_MEMORY = ("failed", "out_of_memory", 137)
DISK_LIMIT = ("failed", "disk_limit", 137)
PROCESS_LIMIT = ("failed", "process_limit", 137)
OUTPUT_LIMIT = ("failed", "output_limit", 137)
COMPLETED = ("completed", None, 0)


@define(eq=False)
class Attack:
    """Runs hostile programs. Call it with a program; it returns the result."""

    server: Server
    api: Api
    mark: str = field(factory=lambda: secrets.token_hex(16))
    """The name of a file in /work. Every process of the program can see the file there, which identifies the
    process. Arguments do not: those of a prestarted interpreter are older than its program."""

    async def __call__(
        self, source: str, files: Mapping[str, str | bytes] | None = None, **metadata: Any
    ) -> Any:
        async with self.watched():
            answer = await self.api.sync(
                tar_of({"main.py": source, self.mark: "", **(files or {})}), metadata
            )
        assert answer.status == 200, answer.document
        return answer.document

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Check all the time inside the block that the server responds."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask_all_the_time, name="ask all the time")
            yield
            tasks.cancel_scope.cancel()

    async def leaves_nothing(self) -> None:
        """Check that the next run works, and that no process and no traceback in the log is left.

        The fixture `attacked` checks at its end that no container is left."""
        assert (await self.api.run("print('next')"))["stdout"] == "next\n"
        # A slot is in use until the sandbox of its run is clean or removed.
        await until_figures(self.server.url, lambda figures: figures("pyexec_slots_in_use") == 0)
        await until_at_most(deployment_of(self.server.data_dir), POOL + SLOTS)
        assert processes_with(self.mark) == []
        log = self.server.log.read_text()
        assert "Traceback" not in log, log

    async def _ask_all_the_time(self) -> None:
        while True:
            with anyio.fail_after(ANSWER_SECONDS):
                assert (await self.api.get("/health")).status == 200
            await anyio.sleep(PAUSE_SECONDS)


def end_of(result: Any) -> tuple[str, str | None, int | None]:
    """Return the fields that tell outcomes apart in docs/api.md."""
    return result["status"], result.get("error_type"), result.get("exit_code")


def processes_with(mark: str) -> list[str]:
    """Return the processes of this machine that have `mark` as a file in their /work."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "root/work" / mark).exists():
                found.append(process.name)
        except (
            FileNotFoundError,
            ProcessLookupError,
            PermissionError,
        ):  # PermissionError: a process in a sandbox of another server
            continue
    return found
