"""README.md and docs/clients.md as their reader meets them: the same run by curl, the command lines, Python and Go."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.golang import CLIENT, Module

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://localhost:8080"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_curl_and_the_command_line(server, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    curl, program = (block.replace(ADDRESS, server.url) for block in blocks(README, "bash")[:2])
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", curl + "\necho\n" + program],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYEXEC_SERVER": server.url},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.count('"stdout": "42\\n"') == 2
    assert done.stdout.endswith("\n42\n")


@pytest.mark.parametrize(
    ("page", "printed"),
    [("README.md", ["42"]), ("docs/clients.md", ["completed 0 42", "files", "a directory", "memory_mb"])],
)
def test_python(server, tmp_path, page, printed):
    (program,) = blocks((ROOT / page).read_text(), "python")
    done = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, server.url)],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert [text for text in printed if text not in done.stdout] == []


def test_go(server, tmp_path):
    (program,) = blocks(README, "go")
    module = Module.of(tmp_path, program.replace(ADDRESS, server.url))
    assert module.go("run", ".") == "42\n"
    assert CLIENT in module.go("list", "-m", "all")
    # Whoever imports the client needs no more than this: there is nothing to write down in go.sum.
    assert not (tmp_path / "go.sum").exists()
