"""Commands of the system that set-up runs, their output kept in .run/setup.log."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from console import SetupError

ROOT = Path(__file__).resolve().parent.parent
RUN_DIR = ROOT / ".run"
LOG = RUN_DIR / "setup.log"


def prepare() -> None:
    """Make .run, and let administrators' programs be found: `su` alone leaves them off PATH."""
    RUN_DIR.mkdir(exist_ok=True)
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def run(argv: list[str], purpose: str, environment: dict[str, str] | None = None) -> None:
    """Run `argv` to its end; a SetupError names the `purpose` and the command's last words."""
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
            raise SetupError(f"Could not {purpose}: there is no `{argv[0]}` on this machine.") from error
    if code != 0:
        raise SetupError(f"Could not {purpose}: {argv[0]} ended with {code}, {last_log_line(LOG)}")


def last_log_line(log: Path) -> str:
    """The last line of a log that says something, quoted, and where the rest is."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f'saying "{lines[-1] if lines else "nothing"}" (all of it: {log}).'
