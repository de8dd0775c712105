"""Run the blocks of a page one after the other in one bash process."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

END = "THE END OF THIS BLOCK"


@frozen
class Shell:
    """A bash that keeps variables and files between blocks. `replaced` maps text of the page to its value here."""

    replaced: Mapping[str, str]
    process: subprocess.Popen[str]

    def run(self, text: str) -> str:
        """Return the output of a block. Fail the test if one of its commands fails."""
        for written, real in self.replaced.items():
            text = text.replace(written, real)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(
            f"{{\n{text}\n}} </dev/null\necho; echo {END}\n"
        )  # keeps commands from reading this input
        self.process.stdin.flush()
        printed = ""
        for line in self.process.stdout:
            if line == f"{END}\n":
                return printed.removesuffix("\n")
            printed += line
        pytest.fail(f"bash exited with {self.process.wait()} after printing {printed!r}:\n{text}")


@contextmanager
def shell(directory: Path, environment: Mapping[str, str], replaced: Mapping[str, str]) -> Iterator[Shell]:
    """Start a bash in `directory` that exits at the first failing command."""
    process = subprocess.Popen(
        ["bash", "-eo", "pipefail"],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Shell(replaced, process)
