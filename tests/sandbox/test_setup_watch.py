"""Test that a setup ends whatever its first process reports: the process may belong to a hostile image."""

import anyio
import pytest

from pyexec.errors import SetupFailed
from pyexec.sandbox.environments import setup_watch
from pyexec.sandbox.environments.setup_watch import SetupWatch

LIMIT = 1 << 20


class Reports:
    """A setup container whose first process prints these lines, and is then silent."""

    def __init__(self, *lines: bytes, written: int = 0) -> None:
        self.lines = list(lines)
        self.written = written

    async def read_line(self) -> bytes:
        if not self.lines:
            await anyio.sleep_forever()
        return self.lines.pop(0)

    async def written_bytes(self) -> int:
        return self.written


def watch_of(reports: Reports) -> SetupWatch:
    return SetupWatch(reports, LIMIT, 0, anyio.CancelScope())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"disk_bytes": 2000000, "stopped": "limit"}', "setup wrote more than 1 MiB and was stopped"),
        (b'{"disk_bytes": 1, "stopped": "engine"}', "the disk of the Docker engine is almost full"),
        (b'{"disk_bytes": 1, "stopped": "locks"}', "setup was stopped: it set too many file locks"),
        (b'{"disk_bytes": 1, "stopped": "files"}', "setup was stopped: it mapped too many files"),
        (
            b'{"disk_bytes": 1, "stopped": "sockets"}',
            "setup was stopped: its sockets could hold too much memory",
        ),
        (b"MemoryError", "the first process of its container failed: MemoryError"),
        (b"[]", "failed: []"),
        (b"[" * 60_000, "failed: [["),
        (b'{"disk_bytes": null}', "failed"),
        (b'{"disk_bytes": Infinity}', "failed"),
        (b'{"disk_bytes": ' + b"1" * 5000 + b"}", "failed"),
    ],
)
async def test_a_report_can_end_the_setup(line: bytes, reason: str) -> None:
    watch = watch_of(Reports(b'{"disk_bytes": 5}', line))
    await watch.follow_reports()
    assert watch.failure is not None
    assert reason in str(watch.failure)
    assert watch.setup.cancel_called


async def test_a_setup_ends_at_a_flood_of_reports() -> None:
    """Each of them takes time of the server, for which the image pays nothing."""
    reports = Reports(*[b'{"disk_bytes": 5}'] * 1000)
    watch = watch_of(reports)
    await watch.follow_reports()
    assert "reports too often" in str(watch.failure)
    assert len(reports.lines) > 800


async def test_a_setup_ends_without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_watch, "SILENT_SECONDS", 0.01)
    watch = watch_of(Reports())
    await watch.follow_reports()
    assert watch.setup.cancel_called


async def test_the_larger_of_both_measurements_counts() -> None:
    watch = watch_of(Reports(b'{"disk_bytes": 7}', b"", written=5))
    await watch.follow_reports()
    await watch.check_at_end()
    assert watch.stored_bytes == 7
    watch = watch_of(Reports(b'{"disk_bytes": -7}', b"", written=LIMIT + 1))
    await watch.follow_reports()
    with pytest.raises(SetupFailed, match="setup wrote more than 1 MiB"):
        await watch.check_at_end()
