"""`make lock`: pin the latest versions of all requirements in requirements.lock, and of the agent frameworks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import integrations
import subprocesses
import virtualenv
from console import print_step, run_main

_HEADER = "# Exact versions of everything that is installed; written by `make lock`.\n"


def main() -> int:
    subprocesses.prepare()
    virtualenv.choose_python()
    with tempfile.TemporaryDirectory(dir=subprocesses.RUN_DIR, prefix="lock-") as folder:
        virtualenv.install(Path(folder), dev=True, constraints=[])
        # pip is not pinned: it comes with Python.
        freeze = [f"{folder}/bin/pip", "freeze", "--all", "--exclude=pip", "--exclude-editable"]
        versions = subprocess.run(freeze, stdout=subprocess.PIPE, text=True, check=True).stdout
    virtualenv.PINS.write_text(_HEADER + versions)
    print_step(f"Pinned {len(versions.splitlines())} packages in {virtualenv.PINS}")
    virtualenv.ensure(dev=True)
    integrations.lock()
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
