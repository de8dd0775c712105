"""`make audit`: what is known against the pinned versions, of Python and of Go.

It asks services on the network that know of vulnerabilities. What it finds fails it. What it could not ask about it
says, and does not fail: so what counts before a release is a pass in which everything was checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import virtualenv
from console import print_step, run_main
from golang import MODULE
from subprocesses import RUN_DIR, prepare, run

_PIP_AUDIT = "pip-audit==2.10.1"
_HOME = RUN_DIR / "pip-audit"
_GO_FOUND = 3
"""What govulncheck ends with when it has found something; 1 is a failure of its own."""


def main() -> int:
    prepare()
    found = [*_python(), *_go()]
    for vulnerability in found:
        print_step(f"VULNERABLE: {vulnerability}")
    return 1 if found else 0


def _python() -> list[str]:
    """Vulnerabilities of what requirements.lock pins."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--requirement"]
    command += [str(virtualenv.PINS), "--format", "json", "--progress-spinner", "off", *sys.argv[1:]]
    path = {**os.environ, "PYTHONPATH": str(_pip_audit())}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print_step(f"Python's pins were NOT CHECKED, the service cannot be asked: {_last_line(done.stderr)}")
        return []
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        print_step(
            f"{len(unknown)} of {len(packages)} Python pins were NOT CHECKED: the package index here tells nothing "
            f"of them ({', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''})"
        )
    print_step(f"{len(packages) - len(unknown)} of {len(packages)} Python pins were checked")
    return [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]


def _pip_audit() -> Path:
    """The folder that pip-audit lies in, fetched the first time. It is no requirement: nothing of ours imports it."""
    if not _HOME.exists():
        unpacked = RUN_DIR / "pip-audit.unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        pip = [str(virtualenv.BIN / "pip"), "install", "--disable-pip-version-check", "--target"]
        run([*pip, str(unpacked), _PIP_AUDIT], "fetch pip-audit")
        unpacked.rename(_HOME)
    return _HOME


def _go() -> list[str]:
    """Vulnerabilities that the Go programs can reach."""
    command = ["go", "-C", str(MODULE), "tool", "-modfile=lint/go.mod", "govulncheck", "./..."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, _GO_FOUND):
        print_step(f"Go's modules were NOT CHECKED: {_last_line(done.stderr)}")
        return []
    print_step("Go's modules and standard library were checked")
    return [line for line in done.stdout.splitlines() if line.startswith("Vulnerability #")]


def _last_line(text: str) -> str:
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


if __name__ == "__main__":
    sys.exit(run_main(main))
