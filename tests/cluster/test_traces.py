"""Test traces in a cluster: the spans of an execution come from several replicas, and are one trace."""

from pathlib import Path

import pytest

from tests.support.api import api_of
from tests.support.archives import script
from tests.support.cluster import running_cluster
from tests.support.consul import dev_agent
from tests.support.otlp import running_collector

pytestmark = pytest.mark.independent

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


async def test_the_replica_that_runs_it_continues_the_trace(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first replica has only one slot, which is in use, so another one runs what it accepts."""
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value"}
    async with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with dev_agent(tmp_path / "consul") as consul:
            async with (
                running_cluster(tmp_path, image, [consul], 2, max_concurrent="1", warm_pool="1") as cluster,
                api_of(cluster.urls[0]) as here,
                api_of(cluster.urls[1]) as there,
            ):
                busy = await here.accepted("import time; print('on', flush=True); time.sleep(3600)")
                await here.until_printed(busy, b"on")
                accepted = await here.submit(script("print(1)"), headers=headers)
                execution = accepted.document["execution_id"]
                assert (await there.ended(execution))["stdout"] == "1\n"
                answer = await there.get(f"/api/v1/executions/{execution}")
                spans = await collector.trace(TRACE)
                await here.request("DELETE", f"/api/v1/executions/{busy}")
    assert spans["accept"][0] != spans["running"][0]
    assert spans["running"][0] == spans["claimed"][0] == spans["completing"][0] == spans["execution"][0]
    _, whole = spans["execution"]
    assert whole.parent_span_id.hex() == PARENT
    assert all(
        span.parent_span_id == whole.span_id for name, (_, span) in spans.items() if name != "execution"
    )
    assert (
        answer.headers["traceparent"]
        == accepted.headers["traceparent"]
        == f"00-{TRACE}-{whole.span_id.hex()}-01"
    )
    assert answer.headers["tracestate"] == "vendor=value"
