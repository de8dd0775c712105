"""All that is measured, as a catalogue, and the interface that it is reported to. Who collects it is not known here.

No label ever holds what a caller gave: each has few values, and all of them are ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Protocol

from attrs import frozen

from pyexec.correlation import MODES

DURATIONS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0),
)
"""Seconds, from what a warm run takes to what a patient operator allows."""
LATENCIES: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds, of what should take hardly any."""


@frozen(kw_only=True, eq=False)
class Metric:
    """One metric by its name. `known` are the values of its labels that are there from the start, at 0: else nobody
    would see the first increase."""

    name: str
    doc: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()


@frozen(kw_only=True, eq=False)
class Counter(Metric):
    """It only grows."""


@frozen(kw_only=True, eq=False)
class Gauge(Metric):
    """It is read whenever somebody asks."""


@frozen(kw_only=True, eq=False)
class Histogram(Metric):
    """How often a value fell below each of `buckets`."""

    buckets: tuple[float, ...] = DURATIONS


class Meter(Protocol):
    """Takes what is measured. The labels' values come in the order of the measure's `labels`."""

    def count(self, measure: Counter, *labels: str, by: float = 1) -> None:
        """It has happened, or grown by so much."""

    def observe(self, measure: Histogram, value: float, *labels: str) -> None:
        """One more value."""

    def watch(self, measure: Gauge, read: Callable[[], float], *labels: str) -> None:
        """From now on `read` tells it."""


class NoopMeter:
    """A meter for where nobody asks."""

    def count(self, measure: Counter, *labels: str, by: float = 1) -> None:
        """Nobody asks."""

    def observe(self, measure: Histogram, value: float, *labels: str) -> None:
        """Nobody asks."""

    def watch(self, measure: Gauge, read: Callable[[], float], *labels: str) -> None:
        """Nobody asks."""


NOOP_METER: Final = NoopMeter()


@contextmanager
def timed(meter: Meter, measure: Histogram, *labels: str) -> Iterator[None]:
    """Observes how long the block takes, in seconds, unless it raises."""
    begun = perf_counter()
    yield
    meter.observe(measure, perf_counter() - begun, *labels)


_OUTCOMES = (
    ("completed", ""),
    ("killed", ""),
    *(("failed", reason) for reason in ("timeout", "out_of_memory", "output_limit")),
    *(("failed", reason) for reason in ("setup_failed", "setup_timeout", "image_unavailable")),
    *(("failed", reason) for reason in ("queue_timeout", "lost", "internal")),
)

EXECUTIONS_ENDED: Final = Counter(
    name="pyexec_executions_ended_total",
    doc="Executions whose end this replica wrote, by how they were asked for and how they ended; "
    "error_type is empty for what completed, whatever the program raised",
    labels=("mode", "status", "error_type"),
    known=tuple((mode, *outcome) for mode in MODES for outcome in _OUTCOMES),
)
EXECUTION_SECONDS: Final = Histogram(
    name="pyexec_execution_seconds", doc="From submission to end", labels=("mode",)
)
PHASE_SECONDS: Final = Histogram(
    name="pyexec_execution_phase_seconds",
    doc="Phases of executions that ended on this replica, as timings_ms tells callers: queue, setup, run",
    labels=("phase",),
    known=(("queue",), ("setup",), ("run",)),
)
STEP_SECONDS: Final = Histogram(
    name="pyexec_step_seconds",
    doc="Where the time of a run goes: slot (waiting for one), sandbox (taken or started), upload (the archive sent "
    "and unpacked), first_commit, program (from the go-ahead to its end), terminal_commit",
    labels=("step",),
    known=tuple(
        (step,) for step in ("slot", "sandbox", "upload", "first_commit", "program", "terminal_commit")
    ),
)
EVENTS_APPENDED: Final = Counter(
    name="pyexec_events_appended_total",
    doc="Events that this replica wrote, by kind: adopted is a program taken over from a replica that died, "
    "released one that waits again",
    labels=("event",),
    known=(("adopted",), ("released",)),
)
UPLOAD_BYTES: Final = Counter(name="pyexec_upload_bytes_total", doc="Bytes of archives that came in")
OUTPUT_BYTES: Final = Counter(name="pyexec_output_bytes_total", doc="Bytes that programs have printed")

SLOTS: Final = Gauge(name="pyexec_slots", doc="Programs that may run here at once")
SLOTS_IN_USE: Final = Gauge(name="pyexec_slots_in_use", doc="Slots that are held")
QUEUE_LENGTH: Final = Gauge(name="pyexec_queue_length", doc="Executions in line for a slot here")
BACKLOG: Final = Gauge(
    name="pyexec_backlog",
    doc="Accepted executions that no replica has taken yet, in the whole deployment: the leader tells, others say 0",
)
QUEUE_LIMIT: Final = Gauge(name="pyexec_queue_limit", doc="Executions that may wait before callers get 429")
MEMORY_BUDGET: Final = Gauge(
    name="pyexec_memory_budget_bytes", doc="Memory that all sandboxes may take together"
)
MEMORY_RESERVED: Final = Gauge(name="pyexec_memory_reserved_bytes", doc="Of that, what held slots may take")
ACTIVE_EXECUTIONS: Final = Gauge(
    name="pyexec_executions_live", doc="Executions that this replica carries on now"
)
CORRUPT_EXECUTIONS: Final = Gauge(
    name="pyexec_damaged_executions", doc="Executions met whose log cannot be read; they are left alone"
)

POOL_SIZE: Final = Gauge(name="pyexec_pool_size", doc="Sandboxes that should wait for programs")
POOL_IDLE: Final = Gauge(name="pyexec_pool_waiting", doc="Sandboxes that wait for programs")
POOL_TAKES: Final = Counter(
    name="pyexec_pool_takes_total",
    doc="Sandboxes taken: hit (one waited), miss (one had to be started)",
    labels=("result",),
    known=(("hit",), ("miss",)),
)
SANDBOX_START_SECONDS: Final = Histogram(
    name="pyexec_sandbox_start_seconds", doc="From asking the engine to a sandbox that waits for its program"
)
SANDBOX_START_FAILURES: Final = Counter(
    name="pyexec_sandbox_start_failures_total", doc="Sandboxes that could not be started"
)
ENVIRONMENT_HITS: Final = Counter(
    name="pyexec_environment_hits_total", doc="Looks for an environment that found it made"
)
ENVIRONMENT_BUILDS: Final = Counter(
    name="pyexec_environment_builds_total",
    doc="Environments made, or failed to be",
    labels=("result",),
    known=(("made",), ("failed",)),
)
ENVIRONMENT_BUILD_SECONDS: Final = Histogram(
    name="pyexec_environment_build_seconds", doc="Making of environments that were made"
)
IMAGE_PULLS: Final = Counter(
    name="pyexec_image_pulls_total",
    doc="Images pulled, or failed to be",
    labels=("result",),
    known=(("pulled",), ("failed",)),
)
IMAGE_PULL_SECONDS: Final = Histogram(name="pyexec_image_pull_seconds", doc="Pulls of images that came")
ISOLATION_CHECK_PASSED: Final = Gauge(
    name="pyexec_limits_proven", doc="1 once a probe has shown that sandboxes hold; nothing runs before"
)

EVENT_LOG_SECONDS: Final = Histogram(
    name="pyexec_event_log_seconds",
    doc="Operations of the event log; those that wait for news are left out",
    labels=("operation",),
    buckets=LATENCIES,
    known=(("append",), ("read",)),
)
EVENT_LOG_ERRORS: Final = Counter(
    name="pyexec_event_log_errors_total",
    doc="Operations of the event log that failed, by the error's code; a conflict is no fault",
    labels=("operation", "kind"),
    known=(("append", "unavailable"), ("read", "unavailable")),
)
LEADER: Final = Gauge(
    name="pyexec_leader", doc="1 while this replica leads, else 0; a sum other than 1 is wrong"
)
MEMBER: Final = Gauge(
    name="pyexec_member", doc="1 while this replica's membership stands; it appends nothing without"
)
CONSUL_REQUESTS: Final = Counter(
    name="pyexec_consul_requests_total",
    doc="Requests sent to Consul",
    labels=("method", "endpoint"),
)
CONSUL_ERRORS: Final = Counter(
    name="pyexec_consul_errors_total",
    doc="Requests that Consul did not serve: unreachable, unanswered (cut off or too late), server_error",
    labels=("kind",),
    known=(("unreachable",), ("unanswered",), ("server_error",)),
)
DOCKER_REQUEST_SECONDS: Final = Histogram(
    name="pyexec_docker_request_seconds",
    doc="Requests to the container engine, to the beginning of their answers",
    labels=("operation",),
)
DOCKER_ERRORS: Final = Counter(
    name="pyexec_docker_errors_total",
    doc="Requests that the container engine did not serve: unreachable (no connection, or cut off), refused "
    "(4xx but 404 and 409, which are daily business), server_error (5xx)",
    labels=("operation", "kind"),
    known=(("containers create", "unreachable"), ("containers create", "server_error")),
)

HTTP_REQUESTS: Final = Counter(
    name="pyexec_http_requests_total",
    doc="Requests answered, by route; status 499 is a caller who hung up",
    labels=("method", "route", "status"),
)
HTTP_SECONDS: Final = Histogram(
    name="pyexec_http_request_seconds", doc="Requests, to the end of their handling", labels=("route",)
)
LOOP_LAG_SECONDS: Final = Histogram(
    name="pyexec_event_loop_lag_seconds",
    doc="How much later than asked the event loop wakes a task, sampled once a second",
    buckets=LATENCIES,
)
BUILD_INFO: Final = Gauge(
    name="pyexec_build_info",
    doc="Always 1; the labels tell what runs",
    labels=("version", "python", "engine"),
)

CATALOGUE: Final[tuple[Metric, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
