"""Run commands as a user does in a terminal, as real processes."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CLI = ROOT / ".venv" / "bin" / "python-executor"


@contextmanager
def started(command: Sequence[str | Path], **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process in its own process group, as a terminal does. If the test fails, send it SIGTERM."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """Send SIGINT to the process group, as a terminal does on Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def output_until(process: subprocess.Popen[str], words: str) -> str:
    """Return the output of the process up to the line that contains `words`; fail if it ends before."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"the process ended without {words!r}; its output was:\n{said}")


def run_dev(*script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a script of dev/ to its end."""
    return subprocess.run(
        ["python3", *script],
        cwd=ROOT / "dev",
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def run_cli(url: str, *arguments: str, stdin: str = "") -> str:
    """Return the output of the command line client, which must succeed."""
    command = [str(CLI), *arguments, "--server", url]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout
