"""Run the code of every page, in order, and compare its output with the page.

All blocks in `bash`, `sh`, `python` or `go` run in an empty folder, so a page creates the files that it uses. The shell
keeps variables and files between blocks. A `text` or `json` block that follows is the expected output, in which `…`
matches anything. `OWN` lists pages with a test of their own; `NOT_RUN` lists blocks that cannot run here, each with its
reason.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import RUN, SHOWN, Block, blocks, pages, prose_of
from tests.docs.shell import Shell, shell
from tests.support.golang import CLIENT, Module, go_program
from tests.support.images import remove_environments
from tests.support.server import PROGRAM, Server, installing_settings, running_server

OWN = {
    "docs/agents.md": "tests/integrations/test_frameworks.py",
    "docs/api.md": "tests/docs/test_api_doc.py",
    "docs/consul.md": "tests/docs/test_consul_doc.py",
    "docs/deployment.md": "tests/image/test_running.py",
}
"""Pages whose blocks are run by a test of their own."""
NOT_RUN = {
    (
        "README.md",
        "docker run --detach --name pyexec --publish 127.0.0.1:8080:8080 --stop-timeout 30 \\",
    ): "needs the server's image, which tests/image builds; tests/image/test_running.py runs it",
    (
        "README.md",
        "python-executor run main.py --image python:3.13 --pre-command 'apt-get update && apt-get install -y ffmpeg'",
    ): "needs a public registry; tests/web/test_environments.py starts its own registry and package index",
    (
        "docs/operations.md",
        "python-executor-server --check",
    ): "depends on the settings of the server; tests/operations/test_preflight.py runs it with many settings",
    (
        "docs/security.md",
        "nomad/firewall.sh up        # both networks; repeat after a reboot, or after you have recreated a network",
    ): "changes the machine's firewall; tests/isolation/test_networks.py runs it on separate networks",
}
"""Blocks that are not run, by page and first line, each with the reason."""
FULL = {
    "docs/cli.md": "it runs with the other command line, which starts in a tenth of the time",
    "docs/sessions.md": "it installs matplotlib; tests/web/test_sessions.py tests its requests",
}
"""Pages that only `make soak` runs with the Python command line, each with the reason."""
SHOWN_AS_PRINTED = ("text", "json")
ADDRESS = "http://localhost:8080"


@pytest.fixture(scope="module")
def machine(session_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server whose image has IPython. For a session, the server would install it, which takes as long as all
    other blocks of README; tests/cli/test_cli_session_server.py does that."""
    data = tmp_path_factory.mktemp("pages") / "data"
    with running_server(data, session_image, **installing_settings()) as server:
        yield server
    remove_environments(session_image)


def is_run_here(block: Block) -> bool:
    return block.language in RUN and block.page not in OWN and (block.page, block.first) not in NOT_RUN


def pages_and_programs() -> Iterator[Any]:
    """Yield each page whose code runs here, with the command line that it uses: each calls it `python-executor`."""
    for page in pages():
        if any(map(is_run_here, blocks(page))):
            yield pytest.param(page, "python", marks=[pytest.mark.full] if page in FULL else [])
    yield pytest.param("docs/cli.md", "go")


@pytest.mark.parametrize(("page", "program"), list(pages_and_programs()))
def test_the_code_of_every_page_runs(
    page: str, program: str, machine: Server, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    programs = go_program(tmp_path_factory).parent if program == "go" else PROGRAM.parent
    path = os.pathsep.join([str(programs), str(PROGRAM.parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYEXEC_SERVER": machine.url}
    with shell(tmp_path, environment, {ADDRESS: machine.url}) as bash:
        printed = None
        for block in blocks(page):
            if is_run_here(block):
                printed = run(block, machine, bash, tmp_path)
            elif block.language in SHOWN_AS_PRINTED and printed is not None:
                assert unseen(block, printed) == [], (
                    f"{block} shows lines that are missing in the output: {printed}"
                )
            else:
                printed = None


def run(block: Block, server: Server, bash: Shell, folder: Path) -> str:
    """Return the output of a block. Fail the test if the block fails."""
    text = block.text.replace(ADDRESS, server.url)
    if block.language == "python":
        return printed_by([sys.executable, "-c", text], folder)
    if block.language == "go":
        return run_go(text, folder, block.line)
    return bash.run(text)


def run_go(program: str, folder: Path, line: int) -> str:
    """Return the output of a Go program, built in a module whose only dependency is the client."""
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
    """Return the lines of the page that are missing in the output."""
    patterns = {line: ".*".join(map(re.escape, line.split("…"))) for line in block.text.splitlines() if line}
    lines = printed.splitlines()
    return [line for line, pattern in patterns.items() if not any(re.fullmatch(pattern, it) for it in lines)]


@pytest.mark.parametrize("page", pages())
def test_every_block_has_a_known_language(page: str) -> None:
    """A block without a known language would never be run."""
    unknown = [str(block) for block in blocks(page) if block.language not in (*RUN, *SHOWN)]
    assert unknown == [], f"allowed are {', '.join((*RUN, *SHOWN))}"
    assert re.findall(r"\n\n    (\S.*)", prose_of(page)) == [], "code is fenced, with its language"


def test_excluded_blocks_and_pages_exist() -> None:
    found = {(block.page, block.first) for page in pages() for block in blocks(page)}
    assert NOT_RUN.keys() <= found
    for page, test in OWN.items():
        assert Path(page).name in Path(test).read_text(), f"{test} does not read {page}"
