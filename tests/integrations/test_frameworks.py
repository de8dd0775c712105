"""Run the checks of each framework, and its example in docs/agents.md, in its own environment on a real server.

`make test-integrations` creates the environments; `dev/integrations.py` pins them."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.test_pages import ADDRESS, unseen
from tests.support.images import remove_environments
from tests.support.paths import ROOT
from tests.support.server import Server, installing_settings, running_server

CHECKS = Path(__file__).parent / "frameworks"
FRAMEWORKS = sorted(path.stem for path in (ROOT / "tests" / "integrations" / "pins").glob("*.txt"))
PAGE = "docs/agents.md"
HEADINGS = {
    "autogen": "AutoGen",
    "google_adk": "Google ADK",
    "langchain": "LangChain",
    "openai_agents": "OpenAI Agents SDK",
    "smolagents": "smolagents",
}
"""The section of each framework on the page."""
PACKAGES = {
    "autogen": "autogen-core",
    "google_adk": "google-adk",
    "langchain": "langchain-core",
    "openai_agents": "openai-agents",
    "smolagents": "smolagents",
}
"""The package that a module needs."""


@pytest.fixture(scope="module")
def machine(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server that uses this machine's package index."""
    data = tmp_path_factory.mktemp("integrations") / "data"
    with running_server(data, image, **installing_settings()) as server:
        yield server
    remove_environments(image)


def python_of(framework: str) -> Path:
    """Return the interpreter of a framework's environment."""
    python = ROOT / ".run" / "integrations" / framework / "bin" / "python"
    assert python.exists(), "`make test-integrations` creates the environments"
    return python


def run_in(framework: str, machine: Server, *arguments: str, folder: Path = ROOT) -> str:
    """Run Python in the environment of a framework. Return its output; fail the test if it fails."""
    environment = {**os.environ, "PYEXEC_SERVER": machine.url, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python_of(framework), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.full
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_executor_or_tool_works_in_its_framework(framework: str, machine: Server) -> None:
    options = ["-q", "-c", str(CHECKS / "pytest.ini"), "--confcutdir", str(CHECKS)]
    run_in(framework, machine, "-m", "pytest", *options, str(CHECKS / f"check_{framework}.py"))


@pytest.mark.full
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_module_fits_the_types_of_the_framework(framework: str) -> None:
    mypy = [Path(sys.executable).parent / "mypy", "--strict", "--python-executable", python_of(framework)]
    module = f"pyexec_client/integrations/{framework}.py"
    done = subprocess.run([*mypy, module], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.full
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_example_on_the_page_runs(framework: str, machine: Server, tmp_path: Path) -> None:
    example, shown = (block for block in blocks(PAGE) if block.heading == HEADINGS[framework])
    printed = run_in(framework, machine, "-c", example.text.replace(ADDRESS, machine.url), folder=tmp_path)
    assert unseen(shown, printed) == [], f"{shown} shows lines that are missing in the output: {printed}"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_its_framework_a_module_names_the_package_to_install(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The missing module can have another name. For example, `agents` is a module of openai-agents."""
    for module in ("agents", "autogen_core", "google.adk", "langchain_core", "PIL", "smolagents"):
        monkeypatch.setitem(sys.modules, module, None)
    package = PACKAGES[framework]
    with pytest.raises(ModuleNotFoundError, match=f"run pip install {package}$"):
        importlib.import_module(f"pyexec_client.integrations.{framework}")
    pins = ROOT / "tests" / "integrations" / "pins" / f"{framework}.txt"
    assert f"\n{package}==" in pins.read_text()


def test_every_example_on_the_page_belongs_to_a_framework() -> None:
    headings = [block.heading for block in blocks(PAGE) if block.language == "python"]
    assert headings == list(HEADINGS.values())
    assert sorted(HEADINGS) == FRAMEWORKS
