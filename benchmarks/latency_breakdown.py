"""Time per step of a warm run, from the server's own metrics."""

import re
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from urllib.request import urlopen

from benchmarks.latency import WarmSync
from benchmarks.report import Measurement, Section
from benchmarks.service import Service, running_service
from tests.support.consul import durable_agent

ROUNDS = 30
STEPS = ("slot", "sandbox", "upload", "first_commit", "program", "terminal_commit")
_SUM = re.compile(r'^pyexec_step_seconds_sum\{step="(\w+)"\} (\S+)$', re.MULTILINE)


def measure_latency_breakdown(image: str) -> Section:
    """Measure each step with the embedded log and with Consul. Takes about a minute."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        embedded = stack.enter_context(running_service(image))
        with_consul = stack.enter_context(running_service(image, consul_addr=agent.address))
        measurements = [*_steps(embedded, "embedded log"), *_steps(with_consul, "Consul")]
    return Section(title="Mean time of each step of a warm run", measurements=measurements)


def _steps(service: Service, log: str) -> list[Measurement]:
    """Return the mean time of each step; the remainder is HTTP, JSON and the client."""
    row = WarmSync(service)
    row.run()
    before = _step_seconds(service)
    total = fmean(row.run() for _ in range(ROUNDS))
    after = _step_seconds(service)
    means = {step: (after[step] - before[step]) / ROUNDS for step in STEPS}
    means["HTTP, JSON, client"] = total - sum(means.values())
    return [
        Measurement(name=f"{step.replace('_', ' ')}, {log}", value=seconds * 1000, unit="ms")
        for step, seconds in {**means, "total": total}.items()
    ]


def _step_seconds(service: Service) -> Mapping[str, float]:
    """Read the seconds spent in each step since the server's start from its metrics."""
    with urlopen(f"{service.server.url}/metrics") as response:
        found = {step: float(seconds) for step, seconds in _SUM.findall(response.read().decode())}
    if not set(STEPS) <= found.keys():
        raise RuntimeError(f"/metrics has the steps {sorted(found)}; expected {STEPS}")
    return found
