"""One bash in which the blocks of a page run one after the other."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

END = "THE END OF THIS BLOCK"


@frozen
class Shell:
    """Variables and files stay from block to block. `replaced` gives what stands on the page its real place here."""

    replaced: Mapping[str, str]
    process: subprocess.Popen[str]

    def run(self, text: str) -> str:
        """What a block prints; fails when one of its commands does."""
        for written, real in self.replaced.items():
            text = text.replace(written, real)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{\n{text}\n}} </dev/null\necho; echo {END}\n")  # it reads no code of ours
        self.process.stdin.flush()
        printed = ""
        for line in self.process.stdout:
            if line == f"{END}\n":
                return printed.removesuffix("\n")
            printed += line
        pytest.fail(f"this ended with {self.process.wait()}, having printed {printed!r}:\n{text}")


@contextmanager
def shell(directory: Path, environment: Mapping[str, str], replaced: Mapping[str, str]) -> Iterator[Shell]:
    """It stands in `directory`, and ends with the first command that fails."""
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
