"""Record the transcript of docs/agents.md: a scripted model uses the MCP tools of a real server.

.venv/bin/python -m tests.docs.transcript http://localhost:8080
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen
from mcp_types import CallToolResult, ContentBlock, ResourceLink, TextContent

from tests.support.mcp import http_client

REVISION = "2025-11-25"
TASK = "How many primes are below one million, and which is the largest? Give me the last five as a file."
PROGRAM = """\
limit = 1_000_000
sieve = bytearray([1]) * limit
for n in range(2, isqrt(limit) + 1):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(sieve[n * n :: n]))
primes = [n for n in range(2, limit) if sieve[n]]
with open("primes.txt", "w") as file:
    print(*primes[-5:], sep="\\n", file=file)
len(primes), primes[-1]
"""


@frozen
class Step:
    """A message of the model, and the tool that it calls. `{execution_id}` stands for the latest execution."""

    says: str
    tool: str
    arguments: Mapping[str, Any]


STEPS = (
    Step("I use a sieve.", "run_python", {"code": PROGRAM, "output_files": ["primes.txt"]}),
    Step(
        "I forgot an import.",
        "run_python",
        {"code": f"from math import isqrt\n{PROGRAM}", "output_files": ["primes.txt"]},
    ),
    Step("I check the file.", "read_output_file", {"execution_id": "{execution_id}", "path": "primes.txt"}),
)
ANSWER = "There are 78498 primes below one million. The largest is 999983. The file is primes.txt."


async def record(url: str) -> str:
    """Return the transcript of the steps on the server at `url`."""
    lines = [f"user: {TASK}", ""]
    execution_id = ""
    async with http_client(url, REVISION) as client:
        for step in STEPS:
            arguments = dict(step.arguments)
            if "execution_id" in arguments:
                arguments["execution_id"] = execution_id
            result = await client.call_tool(step.tool, arguments)
            execution_id = (result.structured_content or {}).get("execution_id", execution_id)
            lines += [f"model: {step.says}", *_call(step.tool, arguments), *_answer(result), ""]
    return "\n".join([*lines, f"model: {ANSWER}", ""])


def _call(tool: str, arguments: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a call. The code has its own lines."""
    code = arguments.pop("code", "")
    yield f"call: {tool} {json.dumps(arguments)}"
    yield from (f"    {line}".rstrip() for line in code.splitlines())


def _answer(result: CallToolResult) -> Iterator[str]:
    """Yield the lines of an answer: all its content."""
    yield "answer (isError):" if result.is_error else "answer:"
    for block in result.content:
        yield from (f"    {line}".rstrip() for line in _text(block).splitlines())


def _text(block: ContentBlock) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, ResourceLink):
        return f"resource link: {block.uri} ({block.size} bytes)"
    return f"{block.type}"


if __name__ == "__main__":
    print(asyncio.run(record(sys.argv[1])))
