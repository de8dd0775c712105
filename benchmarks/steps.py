"""Where a warm run's milliseconds go, by what the server itself counts of each step."""

import re
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from urllib.request import urlopen

from benchmarks.report import Amount, Section
from benchmarks.service import Service, WarmSync, running_service
from tests.support.consul import durable_agent

ROUNDS = 30
STEPS = ("slot", "sandbox", "upload", "first_commit", "program", "terminal_commit")
_SUM = re.compile(r'^pyexec_step_seconds_sum\{step="(\w+)"\} (\S+)$', re.MULTILINE)


def measure_steps(image: str) -> Section:
    """Takes about a minute."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        agent = stack.enter_context(durable_agent(directory / "consul"))
        alone = stack.enter_context(running_service(image))
        with_consul = stack.enter_context(running_service(image, consul_addr=agent.address))
        amounts = [*_steps(alone, "embedded log"), *_steps(with_consul, "Consul")]
    return Section(title="Where a warm run's time goes, on average", amounts=amounts)


def _steps(service: Service, log: str) -> list[Amount]:
    """The mean of each step, and of what is between them: HTTP, JSON, and waiting for each other."""
    row = WarmSync(service)
    row.run()
    before = _sums(service)
    whole = fmean(row.run() for _ in range(ROUNDS))
    after = _sums(service)
    means = {step: (after[step] - before[step]) / ROUNDS for step in STEPS}
    means["all else"] = whole - sum(means.values())
    return [
        Amount(name=f"{step.replace('_', ' ')}, {log}", value=seconds * 1000, unit="ms")
        for step, seconds in {**means, "whole": whole}.items()
    ]


def _sums(service: Service) -> Mapping[str, float]:
    """Seconds of each step since the server's start."""
    with urlopen(f"{service.server.url}/metrics") as answer:
        found = {step: float(seconds) for step, seconds in _SUM.findall(answer.read().decode())}
    if not set(STEPS) <= found.keys():
        raise RuntimeError(f"the server counts {sorted(found)}, not {STEPS}")
    return found
