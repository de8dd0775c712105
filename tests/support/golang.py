"""Go programs that import the client from a module of their own, as users do."""

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

from tests.support.paths import ROOT
from tests.support.schedule import once

CLIENT = "github.com/python-executor/golang-client"


@frozen
class Module:
    """A module that requires the client and nothing else."""

    directory: Path

    @classmethod
    def of(cls, directory: Path, program: str) -> "Module":
        (directory / "main.go").write_text(program)
        (directory / "go.mod").write_text(
            f"module example\n\ngo 1.24.0\n\nrequire {CLIENT} v0.0.0\n\n"
            f"replace {CLIENT} => {ROOT / 'golang-client'}\n"
        )
        return cls(directory)

    def go(self, *arguments: str) -> str:
        """Run a `go` command in the module, with the Go of dev/golang.py; return its output."""
        find = "import golang, subprocesses; subprocesses.prepare(); print(golang.ensure())"
        found = subprocess.run(
            [sys.executable, "-c", find], cwd=ROOT / "dev", check=True, stdout=subprocess.PIPE, text=True
        )
        command = [found.stdout.splitlines()[-1], *arguments]
        return subprocess.run(
            command, cwd=self.directory, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def go_program(factory: pytest.TempPathFactory) -> Path:
    """Return the path of the Go command line, built from this checkout once for all workers."""
    return Path(once(factory, "go-program", _build_program))


def _build_program() -> str:
    command = [sys.executable, ROOT / "dev" / "golang.py"]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return built.stdout.splitlines()[-1]
