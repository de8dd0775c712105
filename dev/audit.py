"""`make audit`: look up known vulnerabilities of the pinned Python and Go dependencies.

The exit code is 1 if a vulnerability is found. A dependency that no reachable service knows is reported as NOT CHECKED
and does not change the exit code; before a release, run it on a machine where everything is checked."""

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
_GOVULNCHECK_FOUND = 3
"""govulncheck's exit code for vulnerabilities found; 1 is an error."""


def main() -> int:
    prepare()
    vulnerabilities = [*_python(), *_go()]
    for vulnerability in vulnerabilities:
        print_step(f"VULNERABLE: {vulnerability}")
    return 1 if vulnerabilities else 0


def _python() -> list[str]:
    """Return the vulnerabilities of the versions in requirements.lock."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--requirement"]
    command += [str(virtualenv.PINS), "--format", "json", "--progress-spinner", "off", *sys.argv[1:]]
    environment = {**os.environ, "PYTHONPATH": str(_pip_audit())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print_step(f"Python packages NOT CHECKED: pip-audit failed: {_last_line(done.stderr)}")
        return []
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        examples = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        print_step(
            f"{len(unknown)} of {len(packages)} Python packages NOT CHECKED: "
            f"the package index has no vulnerability data for them ({examples})"
        )
    print_step(f"{len(packages) - len(unknown)} of {len(packages)} Python packages checked")
    return [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]


def _pip_audit() -> Path:
    """Return the folder of pip-audit; install it if necessary. It is not in .venv because no code imports it."""
    if not _HOME.exists():
        unpacked = RUN_DIR / "pip-audit.unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        pip = [str(virtualenv.BIN / "pip"), "install", "--disable-pip-version-check", "--target"]
        run([*pip, str(unpacked), _PIP_AUDIT], "install pip-audit")
        unpacked.rename(_HOME)
    return _HOME


def _go() -> list[str]:
    """Return the vulnerabilities in Go code that the Go programs can reach."""
    command = ["go", "-C", str(MODULE), "tool", "-modfile=lint/go.mod", "govulncheck", "./..."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, _GOVULNCHECK_FOUND):
        print_step(f"Go modules NOT CHECKED: govulncheck failed: {_last_line(done.stderr)}")
        return []
    print_step("Go modules and standard library checked")
    return [line for line in done.stdout.splitlines() if line.startswith("Vulnerability #")]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "no output")


if __name__ == "__main__":
    sys.exit(run_main(main))
