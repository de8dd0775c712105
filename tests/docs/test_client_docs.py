"""README.md and docs/clients.md as their reader meets them: the same run by curl, the command lines, Python and Go."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://localhost:8080"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def golang(*arguments: str, directory: Path) -> str:
    """What a `go` command prints, with the one that set-up finds."""
    script = "import command, golang; command.prepare(); print(golang.ensure())"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "dev", check=True, stdout=subprocess.PIPE, text=True
    )
    command = [found.stdout.splitlines()[-1], *arguments]
    return subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout


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
    (tmp_path / "main.go").write_text(program.replace(ADDRESS, server.url))
    module = "github.com/python-executor/golang-client"
    (tmp_path / "go.mod").write_text(
        f"module example\n\ngo 1.24.0\n\nrequire {module} v0.0.0\n\nreplace {module} => {ROOT / 'golang-client'}\n"
    )
    assert golang("run", ".", directory=tmp_path) == "42\n"
    assert module in golang("list", "-m", "all", directory=tmp_path)
    # Whoever imports the client needs no more than this: go.sum stays empty.
    assert not (tmp_path / "go.sum").exists()
