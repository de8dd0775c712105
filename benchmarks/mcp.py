"""A small run as a call of an MCP tool, over HTTP and over standard input and output, side by side with `eval`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.report import RatioBound, Section
from benchmarks.service import Service, running_service
from benchmarks.timing import Row, measure, timed

ROUNDS = 20
REVISION = "2026-07-28"
PROGRAM = Path(sys.executable).parent / "python-executor"
META = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
CALL = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "run_python", "arguments": {"code": "1+1"}, "_meta": META},
    }
).encode()
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": REVISION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "run_python",
}


class Eval:
    """`1+1` with `POST /api/v1/eval`."""

    name = "eval of 1+1"

    def __init__(self, service: Service) -> None:
        self._service = service

    def run(self) -> float:
        self._service.wait_until_idle()
        body = json.dumps({"code": "1+1", "eval_last_expr": True}).encode()
        seconds, result = self._service.post("/api/v1/eval", body, {"Content-Type": "application/json"})
        _check(result)
        return seconds


class OverHttp(Eval):
    """`run_python` with the same code at `/mcp`."""

    name = "MCP over HTTP"

    def run(self) -> float:
        self._service.wait_until_idle()
        seconds, answer = self._service.post("/mcp", CALL, HEADERS)
        _check(answer["result"]["structuredContent"])
        return seconds


class OverStdio(Eval):
    """`run_python` with the same code through `python-executor mcp`."""

    name = "MCP over stdio"

    def __init__(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        super().__init__(service)
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the command has no pipes")
        self._requests, self._answers = process.stdin, process.stdout

    def run(self) -> float:
        self._service.wait_until_idle()
        with timed() as watch:
            self._requests.write(CALL + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        self._service.record_activity()
        _check(json.loads(line)["result"]["structuredContent"])
        return watch.seconds


def _check(result: Any) -> None:
    if result.get("result") != "2":
        raise RuntimeError(f"1+1 is not 2: {result}")


@contextmanager
def _command(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    command = [PROGRAM, "mcp", "--server", service.server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def measure_mcp(image: str) -> Section:
    """Measure the latency of calls. Takes about a minute."""
    with ExitStack() as stack:
        service = stack.enter_context(running_service(image))
        process = stack.enter_context(_command(service))
        evaluated, http, stdio = Eval(service), OverHttp(service), OverStdio(service, process)
        for row in (evaluated, http, stdio):  # the first call loads the SDK
            row.run()
        rows: list[tuple[Row, int]] = [(evaluated, 2), (http, 2), (stdio, 2)]
        samples = measure(rows, ROUNDS, service.wait_until_idle)
    bounds = (
        RatioBound(row=OverHttp.name, reference=Eval.name, factor=1.3),
        RatioBound(row=OverStdio.name, reference=Eval.name, factor=1.6),
    )
    return Section(title="MCP", samples=samples, references=(Eval.name,), bounds=bounds)
