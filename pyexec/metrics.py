"""The catalogue of all metrics, and the interface through which the server reports them.

This module does not know which library collects them. A label never contains data from a caller: each label has a
small set of values that the server itself or the operator defines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Protocol

from pyexec.correlation import MODES
from pyexec.domain.events import FailureType
from pyexec.domain.session_events import CloseReason
from pyexec.metric_types import Counter, Gauge, Histogram, Metric

LATENCIES: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Buckets in seconds, for operations that should be very short."""


class Meter(Protocol):
    """Records metrics. Pass label values in the order of the metric's `labels`."""

    def count(self, metric: Counter, *labels: str, by: float = 1) -> None:
        """Increase a counter."""

    def observe(self, metric: Histogram, value: float, *labels: str) -> None:
        """Add a value to a histogram."""

    def watch(self, metric: Gauge, read: Callable[[], float], *labels: str) -> None:
        """Call `read` for the gauge's value each time the metrics are collected."""


class NoopMeter:
    """A meter that records nothing."""

    def count(self, metric: Counter, *labels: str, by: float = 1) -> None:
        """Do nothing."""

    def observe(self, metric: Histogram, value: float, *labels: str) -> None:
        """Do nothing."""

    def watch(self, metric: Gauge, read: Callable[[], float], *labels: str) -> None:
        """Do nothing."""


NOOP_METER: Final = NoopMeter()


@contextmanager
def timed(meter: Meter, metric: Histogram, *labels: str) -> Iterator[None]:
    """Observe how long the block takes, in seconds, unless it raises."""
    begun = perf_counter()
    yield
    meter.observe(metric, perf_counter() - begun, *labels)


_OUTCOMES = (("completed", ""), ("killed", ""), *(("failed", str(reason)) for reason in FailureType))

EXECUTIONS_ENDED: Final = Counter(
    name="pyexec_executions_ended_total",
    doc="Executions whose end this replica wrote, by mode and outcome; error_type is empty for completed "
    "executions, even if the program raised an exception",
    labels=("mode", "status", "error_type"),
    known=tuple((mode, *outcome) for mode in MODES for outcome in _OUTCOMES),
)
EXECUTION_SECONDS: Final = Histogram(
    name="pyexec_execution_seconds", doc="Time from submission to end", labels=("mode",)
)
PHASE_SECONDS: Final = Histogram(
    name="pyexec_execution_phase_seconds",
    doc="Time of each phase of executions that ended on this replica, as in timings_ms: queue, setup, run",
    labels=("phase",),
    known=(("queue",), ("setup",), ("run",)),
)
STEP_SECONDS: Final = Histogram(
    name="pyexec_step_seconds",
    doc="Time of each step of a run: setup_place (waiting for a place in the setup lane), slot (waiting for a "
    "slot), sandbox (getting a sandbox), upload (sending and unpacking the archive), first_commit, program (from "
    "start to end), terminal_commit",
    labels=("step",),
    known=tuple(
        (step,)
        for step in ("setup_place", "slot", "sandbox", "upload", "first_commit", "program", "terminal_commit")
    ),
)
EVENTS_APPENDED: Final = Counter(
    name="pyexec_events_appended_total",
    doc="Events that this replica wrote, by kind; adopted: program of a dead replica followed here, released: "
    "execution returned to the queue",
    labels=("event",),
    known=(("adopted",), ("released",)),
)
UPLOAD_BYTES: Final = Counter(name="pyexec_upload_bytes_total", doc="Bytes of received archives")
OUTPUT_BYTES: Final = Counter(name="pyexec_output_bytes_total", doc="Bytes printed by programs")

SLOTS: Final = Gauge(name="pyexec_slots", doc="Slots: maximum number of concurrent programs on this replica")
SLOTS_IN_USE: Final = Gauge(name="pyexec_slots_in_use", doc="Slots in use")
QUEUE_LENGTH: Final = Gauge(name="pyexec_queue_length", doc="Executions that wait for a slot on this replica")
TENANT_SLOTS_IN_USE: Final = Gauge(
    name="pyexec_tenant_slots_in_use",
    doc="Slots in use by each tenant of PYEXEC_TENANTS_FILE on this replica",
    labels=("tenant",),
)
TENANT_QUEUE_LENGTH: Final = Gauge(
    name="pyexec_tenant_queue_length",
    doc="Executions of each tenant that wait for a slot on this replica",
    labels=("tenant",),
)
TENANT_EXECUTIONS_ENDED: Final = Counter(
    name="pyexec_tenant_executions_ended_total",
    doc="Executions whose end this replica wrote, by tenant and status; the tenant is other if it is no longer "
    "configured",
    labels=("tenant", "status"),
)
BACKLOG: Final = Gauge(
    name="pyexec_backlog",
    doc="Accepted executions that no replica has claimed yet, in the whole deployment; reported by the "
    "leader, 0 on other replicas",
)
QUEUE_LIMIT: Final = Gauge(
    name="pyexec_queue_limit",
    doc="Maximum number of executions of a tenant that wait, for a slot or for a setup; further requests are answered "
    "with 429",
)
SETUP_LIMIT: Final = Gauge(
    name="pyexec_setup_limit", doc="Maximum number of concurrent setups on this replica (pulls and builds)"
)
SETUPS_RUNNING: Final = Gauge(name="pyexec_setups_running", doc="Setups in progress on this replica")
SETUP_QUEUE_LENGTH: Final = Gauge(
    name="pyexec_setup_queue_length",
    doc="Executions whose setup waits for another one to end, on this replica",
)
MEMORY_BUDGET: Final = Gauge(
    name="pyexec_memory_budget_bytes", doc="Maximum memory of all sandboxes together"
)
MEMORY_RESERVED: Final = Gauge(
    name="pyexec_memory_reserved_bytes", doc="Memory reserved by slots in use, as part of the budget"
)
ACTIVE_EXECUTIONS: Final = Gauge(
    name="pyexec_executions_live", doc="Executions that this replica handles now"
)
CORRUPT_EXECUTIONS: Final = Gauge(
    name="pyexec_damaged_executions",
    doc="Executions found with an unreadable log; the server does not touch them",
)

SESSIONS_OPEN: Final = Gauge(
    name="pyexec_sessions_open", doc="Open interpreter sessions that this replica owns"
)
SESSION_LIMIT: Final = Gauge(
    name="pyexec_session_limit", doc="Maximum number of open interpreter sessions on this replica"
)
SESSIONS_OPENED: Final = Counter(
    name="pyexec_sessions_opened_total", doc="Interpreter sessions opened by this replica"
)
SESSIONS_ADOPTED: Final = Counter(
    name="pyexec_sessions_adopted_total", doc="Interpreter sessions of other replicas adopted by this one"
)
SESSIONS_CLOSED: Final = Counter(
    name="pyexec_sessions_closed_total",
    doc="Interpreter sessions closed by this replica, by reason",
    labels=("reason",),
    known=tuple((str(reason),) for reason in CloseReason),
)
INTERPRETER_RESTARTS: Final = Counter(
    name="pyexec_interpreter_restarts_total",
    doc="New interpreters in open sessions: after a limit, a crash, a kill that needed it, or a request",
)

POOL_SIZE: Final = Gauge(name="pyexec_pool_size", doc="Target number of idle sandboxes")
POOL_IDLE: Final = Gauge(name="pyexec_pool_waiting", doc="Idle sandboxes")
POOL_TAKES: Final = Counter(
    name="pyexec_pool_takes_total",
    doc="Sandboxes taken from the pool; hit: an idle sandbox was available, miss: the run waited for a sandbox to "
    "start or to come back",
    labels=("result",),
    known=(("hit",), ("miss",)),
)
SANDBOX_RETURNS: Final = Counter(
    name="pyexec_sandbox_returns_total",
    doc="Sandboxes after a program; reused: kept for another program, removed: discarded",
    labels=("result",),
    known=(("reused",), ("removed",)),
)
SANDBOX_START_SECONDS: Final = Histogram(
    name="pyexec_sandbox_start_seconds",
    doc="Time to start a sandbox, from the request to the engine until the sandbox is ready for a program",
)
SANDBOX_START_FAILURES: Final = Counter(
    name="pyexec_sandbox_start_failures_total", doc="Failed starts of sandboxes"
)
ENVIRONMENT_HITS: Final = Counter(
    name="pyexec_environment_hits_total", doc="Lookups that found an existing environment"
)
ENVIRONMENT_BUILDS: Final = Counter(
    name="pyexec_environment_builds_total",
    doc="Builds of environments, by result",
    labels=("result",),
    known=(("made",), ("failed",)),
)
ENVIRONMENT_BUILD_SECONDS: Final = Histogram(
    name="pyexec_environment_build_seconds", doc="Time of successful builds of environments"
)
IMAGE_PULLS: Final = Counter(
    name="pyexec_image_pulls_total",
    doc="Pulls of images, by result",
    labels=("result",),
    known=(("pulled",), ("failed",)),
)
IMAGE_PULL_SECONDS: Final = Histogram(
    name="pyexec_image_pull_seconds", doc="Time of successful pulls of images"
)
ISOLATION_CHECK_PASSED: Final = Gauge(
    name="pyexec_limits_proven",
    doc="1 after the isolation check has passed, else 0; no program runs before that",
)

EVENT_LOG_SECONDS: Final = Histogram(
    name="pyexec_event_log_seconds",
    doc="Time of event log operations, without those that wait for changes",
    labels=("operation",),
    buckets=LATENCIES,
    known=(("append",), ("read",)),
)
EVENT_LOG_ERRORS: Final = Counter(
    name="pyexec_event_log_errors_total",
    doc="Failed event log operations, by error code; conflicts are not errors",
    labels=("operation", "kind"),
    known=(("append", "unavailable"), ("read", "unavailable")),
)
LEADER: Final = Gauge(
    name="pyexec_leader", doc="1 if this replica is the leader, else 0; the sum over all replicas should be 1"
)
MEMBER: Final = Gauge(
    name="pyexec_member",
    doc="1 while this replica's membership is valid, else 0; without it, the replica appends no events",
)
CONSUL_REQUESTS: Final = Counter(
    name="pyexec_consul_requests_total",
    doc="Requests to Consul",
    labels=("method", "endpoint"),
)
CONSUL_ERRORS: Final = Counter(
    name="pyexec_consul_errors_total",
    doc="Failed requests to Consul: unreachable, unanswered (connection lost or timed out), server_error",
    labels=("kind",),
    known=(("unreachable",), ("unanswered",), ("server_error",)),
)
WEBHOOK_ATTEMPTS: Final = Counter(
    name="pyexec_webhook_attempts_total",
    doc="Attempts to deliver a webhook, by result; a failed one is repeated",
    labels=("result",),
    known=(("delivered",), ("failed",)),
)
WEBHOOKS_DROPPED: Final = Counter(
    name="pyexec_webhooks_dropped_total",
    doc="Webhooks that were dropped: PYEXEC_WEBHOOK_MAX_AGE has passed, or the receiver answered 410",
)
WEBHOOKS_OUTSTANDING: Final = Gauge(
    name="pyexec_webhooks_outstanding",
    doc="Ended executions whose webhook has not been delivered yet, in the whole deployment; reported by the leader, "
    "0 on other replicas",
)
DOCKER_REQUEST_SECONDS: Final = Histogram(
    name="pyexec_docker_request_seconds",
    doc="Time of requests to the container engine, until the response starts",
    labels=("operation",),
)
DOCKER_ERRORS: Final = Counter(
    name="pyexec_docker_errors_total",
    doc="Failed requests to the container engine: unreachable (no connection, or connection lost), refused "
    "(4xx except 404 and 409), server_error (5xx)",
    labels=("operation", "kind"),
    known=(("containers create", "unreachable"), ("containers create", "server_error")),
)

HTTP_REQUESTS: Final = Counter(
    name="pyexec_http_requests_total",
    doc="HTTP requests, by route and status; status 499: the caller closed the connection",
    labels=("method", "route", "status"),
)
HTTP_SECONDS: Final = Histogram(
    name="pyexec_http_request_seconds", doc="Time to handle HTTP requests", labels=("route",)
)
LOOP_LAG_SECONDS: Final = Histogram(
    name="pyexec_event_loop_lag_seconds",
    doc="Delay of the event loop in waking up a task, sampled once a second",
    buckets=LATENCIES,
)
BUILD_INFO: Final = Gauge(
    name="pyexec_build_info",
    doc="Always 1; the labels identify the running version",
    labels=("version", "python", "engine"),
)

CATALOGUE: Final[tuple[Metric, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
