"""The conformance suite's generic scenarios for servers, and the MCP Inspector, against one replica and against three
behind a balancer. Other scenarios need a server with the suite's own tools, prompts and resources."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import playwright
import pytest
from anyio import to_thread

from tests.mcp.test_tools import NAMES
from tests.support.mcp import PROGRAM
from tests.support.round_robin import round_robin
from tests.web.in_process import running_web

pytestmark = pytest.mark.soak

NODE = Path(playwright.__file__).parent / "driver" / "node"
"""The suite needs a newer Node.js than most systems have; the browser tests bring one."""
PACKAGES = ("@modelcontextprotocol/conformance@0.2.0-alpha.12", "@modelcontextprotocol/inspector@0.15.0")
SCENARIOS = {
    "2025-11-25": (
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "resources-list",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
    ),
    "2026-07-28": (
        "server-stateless",
        "tools-list",
        "resources-list",
        "sep-2164-resource-not-found",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "server-sse-multiple-streams",
    ),
}
NOT_GENERIC = {
    "sep-2575-server-rejects-undeclared-capability": "calls the tool test_missing_capability",
    "sep-2575-missing-capability-http-400": "calls the tool test_missing_capability",
    "sep-2575-http-server-no-independent-requests-on-stream": "calls the tool test_streaming_elicitation",
    "sep-2575-server-no-log-without-loglevel": "calls the tool test_logging_tool",
    "sep-2549-prompts-list-caching-hints": "lists prompts, which this server does not have",
}
"""Checks that need more than the scenario says, each with the reason."""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    subprocess.run([*install, *PACKAGES], check=True, capture_output=True)
    return folder / "node_modules" / "@modelcontextprotocol"


@pytest.fixture(params=[1, 3], ids=["one replica", "three replicas"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        urls = []
        for number in range(request.param):
            directory = tmp_path / str(number)
            directory.mkdir()
            urls.append((await stack.enter_async_context(running_web(directory))).url)
        address = urls[0] if len(urls) == 1 else await stack.enter_async_context(round_robin(urls))
        yield address.replace("127.0.0.1", "localhost")


async def node(*command: str | Path) -> subprocess.CompletedProcess[str]:
    run = partial(subprocess.run, [NODE, *command], check=False, capture_output=True, text=True, timeout=120)
    return await to_thread.run_sync(run)


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, name) for revision, names in SCENARIOS.items() for name in names]
)
async def test_scenario(url: str, packages: Path, tmp_path: Path, revision: str, scenario: str) -> None:
    command = [packages / "conformance/dist/index.js", "server", "--url", f"{url}/mcp"]
    command += ["--scenario", scenario, "--spec-version", revision, "-o", tmp_path / "results"]
    done = await node(*command)
    (found,) = (tmp_path / "results").rglob("checks.json")
    checks: list[dict[str, Any]] = json.loads(found.read_text())
    failed = {check["id"] for check in checks if check["status"] in ("FAILURE", "WARNING")}
    assert failed - NOT_GENERIC.keys() == set(), done.stdout
    assert any(check["status"] == "SUCCESS" for check in checks), done.stdout


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_the_inspector_lists_and_calls_the_tools(url: str, packages: Path, transport: str) -> None:
    target = (
        [f"{url}/mcp", "--transport", "http"]
        if transport == "http"
        else ["-e", f"PYEXEC_SERVER={url}", PROGRAM, "mcp"]
    )
    cli = packages / "inspector/cli/build/cli.js"
    listed = await node(cli, "--cli", *target, "--method", "tools/list")
    assert [tool["name"] for tool in json.loads(listed.stdout)["tools"]] == NAMES, listed.stderr
    call = ["--method", "tools/call", "--tool-name", "list_executions"]
    called = await node(cli, "--cli", *target, *call)
    assert json.loads(called.stdout)["structuredContent"]["executions"] == [], called.stderr
