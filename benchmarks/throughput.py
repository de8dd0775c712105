"""Small runs without a pause, by several callers; and tail latency when requests arrive at random."""

import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from attrs import frozen

from benchmarks.baselines import BarePython, DockerRun, bare_python
from benchmarks.go_judge import GoJudge, GoJudgeUnavailable, running_go_judge
from benchmarks.latency import WarmSync
from benchmarks.report import RATE_PREFIX, RATE_UNIT, Measurement, Section
from benchmarks.resource_usage import cpu_seconds
from benchmarks.service import Service, running_service
from benchmarks.timing import Samples, print_progress

CALLERS = 4
SECONDS = 6.0
ROUNDS = 6
SERVICE = WarmSync.name
FACTORS = {DockerRun.name: 10.0, GoJudge.name: 1.2, BarePython.name: 0.5}
"""The minimum ratio of the service's runs per second to those of each row."""
CPU_MS = 5.0
RATES = (3, 10, 20)
RATE_SECONDS = 20.0
RATE_ROUNDS = 3
RATE_CALLERS = 16
TAIL_FACTORS = {20: 3.0}
SETTINGS = {"max_concurrent": str(RATE_CALLERS), "max_total_memory_mb": str(1 << 20)}
"""Enough memory for all slots, so that none of the callers waits for a slot."""
Run = Callable[[], float]


@frozen
class Load:
    """The runs that concurrent callers made within `seconds`."""

    seconds: float
    samples: Samples

    @property
    def rate(self) -> float:
        """Return the runs per second."""
        return len(self.samples.seconds) / self.seconds


def measure_throughput(image: str) -> Section:
    """Measure runs per second of callers without a pause, then the tail latency. Takes about five minutes."""
    with running_service(image, **SETTINGS) as service:
        loads, cpu_per_run = _closed_loops(service, image)
        service.wait_until_idle()
        arrivals = _random_arrivals(service)
    rates = {name: load.rate for name, load in loads.items()}
    measurements = [
        *(Measurement(name=RATE_PREFIX + name, value=rate, unit=RATE_UNIT) for name, rate in rates.items()),
        *(
            Measurement(
                name=f"{RATE_PREFIX}{SERVICE} / {name}",
                value=rates[SERVICE] / rates.get(name, math.nan),
                unit="×",
                at_least=factor,
            )
            for name, factor in FACTORS.items()
        ),
        Measurement(
            name="processor time of the server per run", value=cpu_per_run * 1000, unit="ms", at_most=CPU_MS
        ),
        *(_tail(rate, samples) for rate, samples in arrivals.items()),
        Measurement(
            name=f"p50, {RATES[-1]} / {RATES[0]} requests per second",
            value=arrivals[RATES[-1]].p50 / arrivals[RATES[0]].p50,
            unit="×",
        ),
    ]
    samples = {f"{name}, {CALLERS} callers": load.samples for name, load in loads.items()}
    samples |= {f"{SERVICE}, {rate} requests per second": times for rate, times in arrivals.items()}
    return Section(title="Throughput", samples=samples, measurements=measurements)


def _tail(rate: int, samples: Samples) -> Measurement:
    return Measurement(
        name=f"p95 / p50, {rate} requests per second",
        value=samples.p95 / samples.p50,
        unit="×",
        at_most=TAIL_FACTORS.get(rate),
    )


def _closed_loops(service: Service, image: str) -> tuple[Mapping[str, Load], float]:
    """Run the loops of the service and of all others in turns; return the loads and the server's processor seconds per
    run."""
    pid = service.server.process.pid
    loads: dict[str, list[Load]] = {}
    cpu = 0.0
    with _callers(service, image) as callers:
        for runs in callers.values():
            in_threads(lambda run: run(), runs)  # the first run of each is not counted
        for number in range(1, ROUNDS + 1):
            for name, runs in callers.items():
                before = cpu_seconds(pid)
                loads.setdefault(name, []).append(run_in_loops(runs, SECONDS))
                if name == SERVICE:
                    cpu += cpu_seconds(pid) - before
            print_progress(f"{CALLERS} callers, round {number} of {ROUNDS}")
    merged = {name: merge(parts) for name, parts in loads.items()}
    return merged, cpu / len(merged[SERVICE].samples.seconds)


@contextmanager
def _callers(service: Service, image: str) -> Iterator[Mapping[str, Sequence[Run]]]:
    """Yield the functions that the callers of each row call, one function for each caller.

    go-judge is missing if it cannot be built here. Then its figure is reported as not measured, and its bound as
    missed."""
    with ExitStack() as stack:
        connections = stack.enter_context(service.more_connections(CALLERS))
        callers: dict[str, Sequence[Run]] = {
            SERVICE: [WarmSync(connection).run_now for connection in connections],
            BarePython.name: [stack.enter_context(bare_python(image)).run for _ in range(CALLERS)],
            DockerRun.name: [DockerRun(image).run for _ in range(CALLERS)],
        }
        try:
            judge = stack.enter_context(running_go_judge())
        except GoJudgeUnavailable as error:
            print(f"go-judge is not measured: {error}", file=sys.stderr)
        else:
            callers[GoJudge.name] = [stack.enter_context(judge.connection()).run for _ in range(CALLERS)]
        yield callers


def merge(loads: Sequence[Load]) -> Load:
    """Combine several rounds."""
    seconds = [second for load in loads for second in load.samples.seconds]
    return Load(sum(load.seconds for load in loads), Samples(seconds))


def run_in_loops(runs: Sequence[Run], seconds: float) -> Load:
    """Loop over each of `runs` in a thread of its own until the time is up, then let the last runs finish."""
    samples = Samples()
    started = time.perf_counter()

    def call(run: Run) -> None:
        while time.perf_counter() < started + seconds:
            samples.seconds.append(run())

    in_threads(call, runs)
    return Load(time.perf_counter() - started, samples)


def _random_arrivals(service: Service) -> Mapping[int, Samples]:
    """Measure each rate for some seconds, in turns."""
    random_times = random.Random(0)
    samples = {rate: Samples() for rate in RATES}
    with service.more_connections(RATE_CALLERS) as connections:
        runs = [WarmSync(connection).run_now for connection in connections]
        for number in range(1, RATE_ROUNDS + 1):
            for rate, collected in samples.items():
                moments = poisson_arrivals(random_times, rate, RATE_SECONDS)
                collected.seconds += run_at(runs, moments).seconds
            print_progress(f"random arrivals, round {number} of {RATE_ROUNDS}")
    return samples


def poisson_arrivals(random_times: random.Random, rate: float, seconds: float) -> Sequence[float]:
    """Return the arrival times of a Poisson process with `rate` arrivals per second."""
    moments = []
    moment = random_times.expovariate(rate)
    while moment < seconds:
        moments.append(moment)
        moment += random_times.expovariate(rate)
    return moments


def run_at(runs: Sequence[Run], moments: Sequence[float]) -> Samples:
    """Start a run at each of the moments, on the next free caller.

    A run's time counts from its moment, so waiting for a free caller is included."""
    samples = Samples()
    started = time.perf_counter()
    due = iter([started + moment for moment in moments])
    next_due = threading.Lock()

    def call(run: Run) -> None:
        while True:
            with next_due:
                moment = next(due, None)
            if moment is None:
                return
            time.sleep(max(0.0, moment - time.perf_counter()))
            run()
            samples.seconds.append(time.perf_counter() - moment)

    in_threads(call, runs)
    return samples


def in_threads(work: Callable[[Run], object], runs: Sequence[Run]) -> None:
    """Call `work` for each of `runs`, each in a thread of its own, and wait for all of them."""
    with ThreadPoolExecutor(len(runs)) as threads:
        for done in [threads.submit(work, run) for run in runs]:
            done.result()
