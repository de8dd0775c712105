"""Small runs by concurrent callers, compared with concurrent loops of `docker run --rm`; tail latency at 1/3 load."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from attrs import frozen

from benchmarks.baselines import DockerRun
from benchmarks.latency import WarmSync
from benchmarks.report import Measurement, Section
from benchmarks.resource_usage import cpu_seconds
from benchmarks.service import Service, running_service
from benchmarks.timing import Samples, print_progress

CALLERS = (1, 2, 4, 8, 16)
SECONDS = 10.0
ROUNDS = 2
FACTOR = 1.2
CPU_SHARE = 0.15
TAIL_FACTOR = 4
STEADY_SECONDS = 60.0
STEADY_CALLERS = 8
SETTINGS = {"max_concurrent": str(max(CALLERS))}


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
    """Measure runs per second by number of callers, then the tail latency. Takes about five minutes."""
    samples: dict[str, Samples] = {}
    measurements: list[Measurement] = []
    peak_rate = 0.0
    with running_service(image, **SETTINGS) as service:
        for count in CALLERS:
            label = "1 caller" if count == 1 else f"{count} callers"
            load, reference, cpu = _compare(service, image, count)
            samples[f"service, {label}"] = load.samples
            samples[f"docker run --rm, {label}"] = reference.samples
            peak_rate = max(peak_rate, load.rate)
            measurements += [
                Measurement(
                    name=f"runs per second, {label}, service / docker run",
                    value=load.rate / reference.rate,
                    unit="×",
                    at_least=FACTOR,
                ),
                Measurement(
                    name=f"server's share of all processors, {label}",
                    value=100 * cpu / load.seconds / (os.cpu_count() or 1),
                    unit="%",
                    at_most=100 * CPU_SHARE,
                ),
            ]
        service.wait_until_idle()
        with service.more_connections(STEADY_CALLERS) as connections:
            steady = run_at_rate([WarmSync(c).run_now for c in connections], peak_rate / 3, STEADY_SECONDS)
    samples["service, at 1/3 of the peak rate"] = steady
    tail = steady.percentile(99) / steady.p50
    measurements.append(
        Measurement(name="p99 / p50 at 1/3 of the peak rate", value=tail, unit="×", at_most=TAIL_FACTOR)
    )
    title = f"Throughput: peak rate {peak_rate:.1f} runs per second"
    return Section(title=title, samples=samples, measurements=measurements)


def _compare(service: Service, image: str, count: int) -> tuple[Load, Load, float]:
    """Load the service and `docker run` in turns; return both loads and the server's processor seconds."""
    pid = service.server.process.pid
    with service.more_connections(count) as connections:
        service_runs = [WarmSync(connection).run_now for connection in connections]
        docker_runs = [DockerRun(image).run for _ in range(count)]
        cpu_before = cpu_seconds(pid)
        loads, references = [], []
        for number in range(ROUNDS):
            print_progress(f"{count} callers, round {number + 1} of {ROUNDS}")
            loads.append(run_in_loops(service_runs, SECONDS))
            references.append(run_in_loops(docker_runs, SECONDS))
        cpu = cpu_seconds(pid) - cpu_before
    return merge(loads), merge(references), cpu


def merge(loads: Sequence[Load]) -> Load:
    """Combine several rounds."""
    seconds = [second for load in loads for second in load.samples.seconds]
    return Load(sum(load.seconds for load in loads), Samples(seconds))


def run_in_loops(runs: Sequence[Callable[[], float]], seconds: float) -> Load:
    """Loop over each of `runs` in a thread of its own until the time is up, then let the last runs finish."""
    samples = Samples()
    started = time.perf_counter()

    def call(run: Callable[[], float]) -> None:
        while time.perf_counter() < started + seconds:
            samples.seconds.append(run())

    _in_threads(call, runs)
    return Load(time.perf_counter() - started, samples)


def run_at_rate(runs: Sequence[Callable[[], float]], rate: float, seconds: float) -> Samples:
    """Start `rate` runs per second at even intervals, each on the next free caller.

    A run's time counts from the moment at which it was due, so waiting for a free caller is included."""
    samples = Samples()
    started = time.perf_counter()
    due = iter([started + number / rate for number in range(int(seconds * rate))])
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

    _in_threads(call, runs)
    return samples


def _in_threads(work: Callable[[Callable[[], float]], None], runs: Sequence[Callable[[], float]]) -> None:
    with ThreadPoolExecutor(len(runs)) as threads:
        for done in [threads.submit(work, run) for run in runs]:
            done.result()
