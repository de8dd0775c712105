"""Events that a process has appended are in the log after a crash of the process."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from anyio import to_thread

from tests.contract.logs import LOGS
from tests.events import new_id, submitted
from tests.support.cases import sampled
from tests.support.paths import ROOT


def kill_after(command: list[str], reports: int) -> str:
    """Run the command, kill it after that many lines of output, and return the last line."""
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if len(lines) == reports:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return lines[-1]


@sampled("reports", [1, 10, 100, 400], every=2)
async def test_a_killed_process_loses_no_reported_event(log_name: str, tmp_path: Path, reports: int) -> None:
    location = tmp_path / "log"
    command = [sys.executable, "-m", "tests.contract.appender", log_name, str(location)]
    kill_at = random.randint(reports, 2 * reports)
    execution, reported = (await to_thread.run_sync(kill_after, command, kill_at)).split()
    async with LOGS[log_name](location) as log:
        events = await log.read(execution)
        # The append in progress may have been written, but only completely.
        assert len(events) in (int(reported), int(reported) + 2)
        assert (await log.open_executions()).lengths.keys() == {execution}
        await log.append(execution, len(events), [submitted()])
        await log.append(new_id(), 0, [submitted()])
