"""Test traces: a collector receives the spans of each phase, and no failure of a collector fails a run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyexec.errors import SettingsError
from pyexec.preflight.host import check_traces
from pyexec.wiring import tracing
from tests.support.api import api_of
from tests.support.archives import script
from tests.support.consul import free_ports
from tests.support.otlp import running_collector
from tests.support.paths import ROOT
from tests.support.server import running_server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
OPERATIONS = ROOT / "docs" / "operations.md"
PHASES = {"execution", "accept", "queued", "claimed", "running", "completing"}


async def test_a_run_is_one_trace_below_the_callers_span(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with running_server(tmp_path / "data", image) as server:
            async with api_of(server.url) as api:
                headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1, b=2"}
                answer = await api.sync(script("print(1)"), headers=headers)
                spans = await collector.trace(TRACE)
                malformed = await api.sync(script("print(1)"), headers={"traceparent": f"00-{TRACE}-xyz"})
                own = malformed.headers["traceparent"].split("-")[1]
                alone = await collector.trace(own)
                unsampled = await api.submit(
                    script("1"), headers={"traceparent": f"00-{'5' * 32}-{PARENT}-00"}
                )
                await api.ended(unsampled.document["execution_id"])
                failed = await api.sync(
                    script("import time; time.sleep(9)"), {"config": {"timeout_seconds": 0.1}}
                )
                _, timed_out = (await collector.trace(failed.headers["traceparent"].split("-")[1]))[
                    "execution"
                ]

    assert {*PHASES, "unpack", "get sandbox"} <= spans.keys()
    _, whole = spans["execution"]
    assert whole.parent_span_id.hex() == PARENT
    assert answer.headers["traceparent"] == f"00-{TRACE}-{whole.span_id.hex()}-01"
    assert answer.headers["tracestate"] == "a=1,b=2"
    for name, (_, span) in spans.items():
        assert name == "execution" or span.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
    assert [event.name for event in whole.events] == ["submitted", "claimed", "running", "finished"]
    assert own != TRACE
    assert not alone["execution"][1].parent_span_id
    assert unsampled.headers["traceparent"].startswith(f"00-{'5' * 32}-")
    assert unsampled.headers["traceparent"].endswith("-00")
    assert not any(span.trace_id.hex() == "5" * 32 for _, span in collector.spans)
    assert {each.key: each.value.string_value for each in timed_out.attributes}["error.type"] == "timeout"


async def test_a_collector_that_does_not_answer_fails_nothing(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once a minute, and the shutdown does not wait for it."""
    (port,) = free_ports(["collector"]).values()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with running_server(tmp_path / "data", image) as server:
        async with api_of(server.url) as api:
            for _ in range(3):
                assert (await api.run("print(1)"))["stdout"] == "1\n"
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 15
    log = server.log.read_text()
    assert log.count("exporting traces failed") == 1, log
    assert "Traceback" not in log


def test_without_a_collector_the_sdk_is_not_imported() -> None:
    """Not even its API."""
    code = "import sys, pyexec.server; sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    assert not tracing.is_tracing({})
    assert not tracing.is_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": ""})


def test_wrong_variables_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert tracing.is_tracing(endpoint)
    assert [result.verdict for result in check_traces(endpoint)] == ["ok"]
    assert not tracing.is_tracing({**endpoint, "OTEL_SDK_DISABLED": "true"})
    for malformed in ("collector:4317", "http://[::1", "http://collector:port"):
        with pytest.raises(SettingsError, match="http://host:4318"):
            tracing.is_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": malformed})
    with pytest.raises(SettingsError, match="allowed: http/protobuf"):
        tracing.is_tracing({**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setattr(tracing, "_is_installed", lambda: False)
    with pytest.raises(SettingsError) as raised:
        tracing.is_tracing(endpoint)
    assert tracing.INSTALL in str(raised.value)
    assert f"\n{tracing.INSTALL}\n" in OPERATIONS.read_text()
    assert [result.verdict for result in check_traces(endpoint)] == ["failed"]
