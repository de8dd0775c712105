"""The Nomad binary for `make soak`, built in .run from the version in nomad/check/go.mod.

`python3 dev/nomad.py` prints the path of the binary."""

from __future__ import annotations

import sys
from pathlib import Path

import golang
from console import print_step, run_main
from subprocesses import ROOT, RUN_DIR, prepare, run

_MODULE = ROOT / "nomad" / "check"
_BINARY = RUN_DIR / "nomad" / "nomad"
_PACKAGE = "github.com/hashicorp/nomad"


def ensure() -> Path:
    """Return the path of the Nomad binary; build it if go.mod is newer."""
    if not _BINARY.exists() or _BINARY.stat().st_mtime < (_MODULE / "go.mod").stat().st_mtime:
        go = golang.ensure()
        print_step("Building Nomad, which takes some minutes the first time")
        run([str(go), "-C", str(_MODULE), "build", "-o", str(_BINARY), _PACKAGE], "build Nomad")
    return _BINARY


def main() -> int:
    prepare()
    print(ensure())
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
