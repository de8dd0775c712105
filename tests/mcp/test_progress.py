"""Test progress notifications: their text, and errors while they are sent. No server is needed."""

import subprocess
import sys
from unittest.mock import AsyncMock, Mock

import pytest
from mcp import MCPError

from pyexec.mcp.progress import Progress, ProgressText


def test_each_stream_has_its_own_decoder() -> None:
    progress = ProgressText()
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert progress.output("stdout", b"a" + first) == "a"
    assert progress.output("stderr", b"error\n") == "error\n"
    assert progress.output("setup", b"setup\n") == "setup\n"
    assert progress.output("stdout", second + b"b") == "éb"


def test_displays_are_not_text() -> None:
    assert ProgressText().output("display", b'{"data": {"image/png": "iVBORw0KGgo="}}') == ""


def test_phases_are_lines() -> None:
    progress = ProgressText()
    events = ("submitted", "claimed", "preparing", "running", "adopted")
    assert [progress.phase(event) for event in events] == [
        "queued\n",
        "",
        "installing\n",
        "running\n",
        "running\n",
    ]


@pytest.mark.parametrize("meta", [None, {"progress_token": 1}])
async def test_an_exception_of_the_body_is_raised_as_it_is(meta: dict[str, int] | None) -> None:
    context = Mock(meta=meta, session=Mock(report_progress=AsyncMock()))
    with pytest.raises(MCPError, match="wrong"):
        async with Progress(context).sending():
            raise MCPError(1, "wrong")


def test_the_executor_of_the_server_does_not_load_the_sdk() -> None:
    code = "import sys, pyexec.web.mcp.executor; assert 'mcp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
