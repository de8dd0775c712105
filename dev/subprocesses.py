"""Commands that the scripts run, with their output in .run/setup.log."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from console import SetupError

ROOT = Path(__file__).resolve().parent.parent
RUN_DIR = ROOT / ".run"
LOG = RUN_DIR / "setup.log"


def prepare() -> None:
    """Create .run, and add the sbin directories to PATH: after a plain `su` they are missing."""
    RUN_DIR.mkdir(exist_ok=True)
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def run(argv: list[str], purpose: str, environment: dict[str, str] | None = None) -> None:
    """Run a command to its end; a `SetupError` names the purpose and quotes the last line of output."""
    with LOG.open("ab") as log:
        log.write(f"$ {' '.join(argv)}\n".encode())
        log.flush()
        try:
            code = subprocess.run(
                argv,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        except FileNotFoundError as error:
            raise SetupError(f"Cannot {purpose}: the command `{argv[0]}` is not installed.") from error
    if code != 0:
        raise SetupError(f"Cannot {purpose}: {argv[0]} exited with code {code}. {last_log_line(LOG)}")


def describe_exit(code: int) -> str:
    """Describe an unexpected exit, for example "was killed by SIGKILL"."""
    if code == 0:  # a service ends without an error only after such a signal
        return "was stopped by another process (SIGTERM or SIGINT)"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"failed with exit code {code}"


def last_log_line(log: Path) -> str:
    """Return a sentence that quotes the last non-empty line of a log and names the log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f'Last line of {log}: "{lines[-1]}"' if lines else f"{log} is empty."
