"""Every page as its reader meets it: its code runs, in order, and prints what the page shows.

A block in `bash`, `sh`, `python` or `go` runs here without being named anywhere; a shell's variables and files stay
from block to block. `text` or `json` that follows is what it prints; `…` in it stands for anything. Of a page that
needs more than one server a test of its own runs the blocks (`OWN`); the few that nothing can run here are in
`NOT_RUN`, each with its reason.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.docs.blocks import RUN, SHOWN, Block, blocks, pages, prose_of
from tests.docs.shell import Shell, shell
from tests.support.archives import tar_of
from tests.support.golang import CLIENT, Module
from tests.support.images import remove_environments
from tests.support.server import PROGRAM, Server, running_server

OWN = {
    "docs/api.md": "tests/docs/test_api_doc.py",
    "docs/consul.md": "tests/docs/test_consul_doc.py",
    "docs/deployment.md": "tests/image/test_running.py",
}
"""Pages whose blocks are run by a test that knows what they need."""
NOT_RUN = {
    (
        "README.md",
        "python-executor run main.py --image python:3.13 --pre-command 'apt-get update && apt-get install -y ffmpeg'",
    ): "names an image of a public registry; tests/web/test_environments.py has a registry and an index of its own",
    (
        "docs/operating.md",
        "python-executor-server --check",
    ): "looks at the machine with the settings of a server to be; tests/operations/test_check.py runs it with many",
    (
        "docs/security.md",
        "nomad/firewall.sh up        # both networks; again after a reboot, or when you made one of your own anew",
    ): "changes this machine's firewall; tests/isolation/test_networks.py runs it in a network of its own",
}
"""Blocks by their first line, and why nothing runs them."""
SHOWN_AS_PRINTED = ("text", "json")
ADDRESS = "http://localhost:8080"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
FILES = {
    "main.py": "import sys\nprint(6 * 7)\nopen('plot.png', 'w').write('a plot')\n",
    "requirements.txt": "numpy\n",
    "a.py": "import lib.b\n",
    "lib/b.py": "print('b')\n",
    "job.py": "print('job')\n",
    "project/main.py": "print('a project')\n",
}
"""What a reader has in the folder where the blocks run."""


@pytest.fixture(scope="module")
def machine(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that installs packages as this machine does."""
    settings = {"ca_bundle": str(AUTHORITIES)} if AUTHORITIES.exists() else {}
    if index := os.environ.get("PIP_INDEX_URL"):
        settings["pip_index_url"] = index
    with running_server(tmp_path_factory.mktemp("pages") / "data", image, **settings) as server:
        yield server
    remove_environments(image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reader's folder."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "code.tar").write_bytes(tar_of({"main.py": "print('code')"}))
    return tmp_path


def is_run_here(block: Block) -> bool:
    return block.language in RUN and block.page not in OWN and (block.page, block.first) not in NOT_RUN


@pytest.mark.parametrize("page", [page for page in pages() if any(map(is_run_here, blocks(page)))])
def test_what_a_page_says_runs(page: str, machine: Server, folder: Path) -> None:
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYEXEC_SERVER": machine.url}
    with shell(folder, environment, {ADDRESS: machine.url}) as bash:
        printed = None
        for block in blocks(page):
            if is_run_here(block):
                printed = run(block, machine, bash, folder)
            elif block.language in SHOWN_AS_PRINTED and printed is not None:
                assert unseen(block, printed) == [], f"{block} shows what is not printed: {printed}"
            else:
                printed = None


def run(block: Block, machine: Server, bash: Shell, folder: Path) -> str:
    """What a block prints, all of it; fails when it fails."""
    text = block.text.replace(ADDRESS, machine.url)
    if block.language == "python":
        return printed_by([sys.executable, "-c", text], folder)
    if block.language == "go":
        return run_go(text, folder, block.line)
    return bash.run(text)


def run_go(program: str, folder: Path, line: int) -> str:
    """What a Go program prints in the reader's folder, built in a module that needs the client and nothing else."""
    directory = folder / f"go-{line}"
    directory.mkdir()
    module = Module.of(directory, program)
    module.go("build", "-o", "program", ".")
    assert CLIENT in module.go("list", "-m", "all")
    assert not (directory / "go.sum").exists()
    return printed_by([directory / "program"], folder)


def printed_by(command: Sequence[str | Path], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def unseen(block: Block, printed: str) -> Sequence[str]:
    """Lines of what a page shows that were not printed."""
    patterns = {line: ".*".join(map(re.escape, line.split("…"))) for line in block.text.splitlines() if line}
    lines = printed.splitlines()
    return [line for line, pattern in patterns.items() if not any(re.fullmatch(pattern, it) for it in lines)]


@pytest.mark.parametrize("page", pages())
def test_every_block_says_what_it_is(page: str) -> None:
    """So that none is passed over: a command that only looks like an example would never be run."""
    unknown = [str(block) for block in blocks(page) if block.language not in (*RUN, *SHOWN)]
    assert unknown == [], f"allowed are {', '.join((*RUN, *SHOWN))}"
    assert re.findall(r"\n\n    (\S.*)", prose_of(page)) == [], "code is fenced, with its language"


def test_what_is_not_run_is_there() -> None:
    found = {(block.page, block.first) for page in pages() for block in blocks(page)}
    assert NOT_RUN.keys() <= found
    for page, test in OWN.items():
        assert Path(page).name in Path(test).read_text(), f"{test} does not read {page}"
