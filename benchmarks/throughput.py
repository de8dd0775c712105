"""Small runs by several callers at once: without a pause, beside as many loops of `docker run --rm`; and at a third of
what the service can do."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from attrs import frozen

from benchmarks.bare import DockerRun
from benchmarks.meters import cpu_seconds
from benchmarks.report import Amount, Section
from benchmarks.samples import Samples, show
from benchmarks.service import WarmSync, running_service

CALLERS = (1, 2, 4, 8, 16)
SECONDS = 10.0
ROUNDS = 2
FACTOR = 1.2
CPU_SHARE = 0.15
TAIL = 4
CALM_SECONDS = 60.0
CALM_CALLERS = 8
SETTINGS = {"max_concurrent": str(max(CALLERS))}


@frozen
class Load:
    """What was done in so many seconds, and how long each took."""

    seconds: float
    samples: Samples

    @property
    def rate(self) -> float:
        """Runs a second."""
        return len(self.samples.seconds) / self.seconds


def measure_throughput(image: str) -> Section:
    """Takes about five minutes."""
    samples: dict[str, Samples] = {}
    amounts: list[Amount] = []
    saturation = 0.0
    with running_service(image, **SETTINGS) as service:
        pid = service.server.process.pid
        for count in CALLERS:
            with service.others(count) as connections:
                ours = [WarmSync(connection).run_now for connection in connections]
                beside = [DockerRun(image).run for _ in range(count)]
                cpu_before = cpu_seconds(pid)
                loads, references = [], []
                for number in range(ROUNDS):
                    show(f"{count} callers, round {number + 1} of {ROUNDS}")
                    loads.append(without_pause(ours, SECONDS))
                    references.append(without_pause(beside, SECONDS))
                cpu = cpu_seconds(pid) - cpu_before
            load, reference = together(loads), together(references)
            samples[f"service, {callers(count)}"] = load.samples
            samples[f"docker run --rm, {callers(count)}"] = reference.samples
            saturation = max(saturation, load.rate)
            amounts += [
                Amount(
                    name=f"runs a second, {callers(count)}, beside docker run",
                    value=load.rate / reference.rate,
                    unit="×",
                    at_least=FACTOR,
                ),
                Amount(
                    name=f"the service's share of all processors, {callers(count)}",
                    value=100 * cpu / load.seconds / (os.cpu_count() or 1),
                    unit="%",
                    at_most=100 * CPU_SHARE,
                ),
            ]
        service.settle()
        with service.others(CALM_CALLERS) as connections:
            calm = in_step([WarmSync(c).run_now for c in connections], saturation / 3, CALM_SECONDS)
    samples["service, at a third of its most"] = calm
    tail = calm.percentile(99) / calm.p50
    amounts.append(Amount(name="p99 / p50 at a third of its most", value=tail, unit="×", at_most=TAIL))
    title = f"Throughput: at most {saturation:.1f} runs a second"
    return Section(title=title, samples=samples, amounts=amounts)


def callers(count: int) -> str:
    """For the name of a row."""
    return "1 caller" if count == 1 else f"{count} callers"


def together(loads: Sequence[Load]) -> Load:
    """Several rounds as one."""
    seconds = [second for load in loads for second in load.samples.seconds]
    return Load(sum(load.seconds for load in loads), Samples(seconds))


def without_pause(runs: Sequence[Callable[[], float]], seconds: float) -> Load:
    """Each of `runs` by a caller of its own, again and again until the time is over; what has begun then counts."""
    samples = Samples()
    begun = time.perf_counter()

    def call(run: Callable[[], float]) -> None:
        while time.perf_counter() < begun + seconds:
            samples.seconds.append(run())

    _at_once(call, runs)
    return Load(time.perf_counter() - begun, samples)


def in_step(runs: Sequence[Callable[[], float]], rate: float, seconds: float) -> Samples:
    """So many runs a second, evenly, whether or not those before are over; by whichever caller is free. A run's time
    counts from the moment at which it was due."""
    samples = Samples()
    begun = time.perf_counter()
    due = iter([begun + number / rate for number in range(int(seconds * rate))])
    next_due = threading.Lock()

    def call(run: Callable[[], float]) -> None:
        while True:
            with next_due:
                moment = next(due, None)
            if moment is None:
                return
            time.sleep(max(0.0, moment - time.perf_counter()))
            run()
            samples.seconds.append(time.perf_counter() - moment)

    _at_once(call, runs)
    return samples


def _at_once(work: Callable[[Callable[[], float]], None], runs: Sequence[Callable[[], float]]) -> None:
    with ThreadPoolExecutor(len(runs)) as threads:
        for ended in [threads.submit(work, run) for run in runs]:
            ended.result()
