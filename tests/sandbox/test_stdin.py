"""Test the standard input: a pipe of any size, which the supervisor fills while the program reads."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.api import Api, api_of
from tests.support.attack import COMPLETED, TIMEOUT, end_of
from tests.support.server import Server

LARGE = 5_000_000
MEBIBYTE = 1024 * 1024

BY_A_LOOP = """
import asyncio, sys
async def main():
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print(len(await reader.read()))
asyncio.run(main())
"""


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with api_of(server.url) as client:
        yield client


async def run(api: Api, source: str, size: int, **metadata: Any) -> Any:
    return await api.run(source, stdin="x" * size, **metadata)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, LARGE])
async def test_an_event_loop_reads_all_of_it(api: Api, size: int) -> None:
    result = await run(api, BY_A_LOOP, size)
    assert (result["stdout"], result["stderr"]) == (f"{size}\n", "")


async def test_it_is_a_pipe_at_its_end_at_once_if_it_is_empty(api: Api) -> None:
    source = "import os, stat; print(stat.S_ISFIFO(os.fstat(0).st_mode), os.read(0, 1))"
    assert (await run(api, source, 0))["stdout"] == "True b''\n"


@pytest.mark.parametrize(
    "act",
    ["os.close(0)", "os.read(0, 9); os.close(0)", "os.dup2(os.open('/dev/null', os.O_RDONLY), 0)", "pass"],
    ids=["closes it", "closes it later", "replaces it", "never reads it"],
)
async def test_a_program_that_does_not_read_it_all(api: Api, act: str) -> None:
    result = await run(api, f"import os, time\n{act}\ntime.sleep(0.05)\nprint('on')", LARGE)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "on\n")


async def test_a_child_gets_the_rest(api: Api) -> None:
    source = "import os, subprocess\nprint(len(os.read(0, 5)), flush=True)\nsubprocess.run(['wc', '-c'])"
    assert (await run(api, source, LARGE))["stdout"].split() == ["5", str(LARGE - 5)]


async def test_no_process_of_the_program_keeps_it_open(api: Api) -> None:
    source = (
        "import subprocess, sys\nsleeper = subprocess.Popen(['sleep', '60'], stdin=-3)\n"
        "print(len(sys.stdin.read()))\nsleeper.kill()"
    )
    assert (await run(api, source, LARGE))["stdout"] == f"{LARGE}\n"


async def test_it_is_written_while_output_is_read(api: Api) -> None:
    source = "import sys\nfor line in sys.stdin: sys.stdout.write(line)"
    text = "a line of the input\n" * 200_000
    result = await api.run(source, stdin=text)
    assert (end_of(result), result["stdout"] == text) == (COMPLETED, True)


async def test_a_full_pipe_does_not_delay_a_limit(api: Api) -> None:
    result = await run(api, "while True: pass", LARGE, config={"timeout_seconds": 1})
    assert end_of(result) == TIMEOUT


async def test_what_is_not_read_yet_is_not_the_program_s_memory(api: Api) -> None:
    source = "import sys, time\nsys.stdin.read(1)\ntime.sleep(0.3)\nprint('on')"
    result = await run(api, source, LARGE)
    assert result["usage"]["peak_memory_bytes"] < 15 * MEBIBYTE
