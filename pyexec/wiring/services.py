"""Build the services of a replica from its stores and its sandboxes. Each function builds one subsystem."""

import platform

from attrs import evolve, frozen

from pyexec import __version__
from pyexec.domain.output_files import FileLimits
from pyexec.domain.spec import MEBIBYTE
from pyexec.domain.tenants import Tenants
from pyexec.limits import policy_of
from pyexec.metrics import (
    ACTIVE_EXECUTIONS,
    BACKLOG,
    BUILD_INFO,
    CORRUPT_EXECUTIONS,
    ISOLATION_CHECK_PASSED,
    LEADER,
    MEMBER,
    WEBHOOKS_OUTSTANDING,
    Meter,
)
from pyexec.ports import BlobStore, EngineIdentity, EventLog, SessionLog, WebhookSender
from pyexec.sandbox.isolation_check import IsolationCheck
from pyexec.sandbox.pool.pool import Pool
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.completion import CompletionWriter
from pyexec.services.event_log import CorruptLogReporter, MeteredLog, MeteredSessionLog
from pyexec.services.in_doubt import InDoubtResolver
from pyexec.services.inbox import SLOT_WAIT_SECONDS, InboxWorker
from pyexec.services.output_files import OutputFileLimits
from pyexec.services.output_spill import OutputSpill
from pyexec.services.preparation import Preparation
from pyexec.services.reconciler import Reconciler, ReconcilerConfig
from pyexec.services.retention import Retention
from pyexec.services.run_monitor import OutputLimits
from pyexec.services.runner import Runner, RunnerConfig
from pyexec.services.sessions.reconciler import SessionReconciler
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slots
from pyexec.services.submissions import SubmissionConfig, Submissions
from pyexec.services.tracing import ExecutionTraces, TracedLog
from pyexec.services.webhooks import WebhookDeliveries
from pyexec.settings import Settings
from pyexec.tenants_file import webhook_policy
from pyexec.wiring.memory import memory_budget_mb
from pyexec.wiring.sandboxes import OVERHEAD_MB
from pyexec.wiring.stores import Stores


@frozen(kw_only=True)
class SharedParts:
    """Parts that all services share: the settings, the replica, its stores, and its current runs."""

    settings: Settings
    replica_id: str
    identity: EngineIdentity
    stores: Stores
    log: EventLog
    session_log: SessionLog
    blobs: BlobStore
    slots: Slots
    lane: SetupLane
    active_runs: ActiveRuns
    output_spill: OutputSpill
    corrupt_logs: CorruptLogReporter
    in_doubt: InDoubtResolver
    webhooks: WebhookDeliveries
    meter: Meter
    traces: ExecutionTraces | None


def build_shared_parts(
    settings: Settings,
    tenants: Tenants,
    replica_id: str,
    identity: EngineIdentity,
    stores: Stores,
    sender: WebhookSender,
    meter: Meter,
    traces: ExecutionTraces | None,
) -> SharedParts:
    """Build the parts that several services use: slots, setup lane, active runs, and the event log with its metrics."""
    output_spill = OutputSpill(settings.data_dir)
    active_runs = ActiveRuns(on_remove=output_spill.watch)
    slots = Slots(
        concurrent_max=settings.max_concurrent,
        queue_max=settings.max_queued,
        memory_mb_max=memory_budget_mb(settings, identity.memory_mb),
        overhead_mb=OVERHEAD_MB,
        tenants=tenants,
        meter=meter,
    )
    if traces is None:
        log = MeteredLog(stores.log, active_runs, meter, tenants)
    else:
        log = TracedLog(stores.log, active_runs, meter, tenants, traces=traces)
    corrupt_logs = CorruptLogReporter()
    return SharedParts(
        settings=settings,
        replica_id=replica_id,
        identity=identity,
        stores=stores,
        log=log,
        session_log=MeteredSessionLog(stores.session_log, meter),
        blobs=stores.blobs,
        slots=slots,
        lane=SetupLane(setups_max(settings, identity.cpus, identity.memory_mb), tenants, meter),
        active_runs=active_runs,
        output_spill=output_spill,
        corrupt_logs=corrupt_logs,
        in_doubt=InDoubtResolver(
            log=log, active_runs=active_runs, replica=replica_id, corrupt_logs=corrupt_logs
        ),
        webhooks=WebhookDeliveries(
            log=log,
            blobs=stores.blobs,
            sender=sender,
            policy=webhook_policy(settings, tenants),
            shows_tenant=tenants.requires_token,
            corrupt_logs=corrupt_logs,
            meter=meter,
        ),
        meter=meter,
        traces=traces,
    )


def setups_max(settings: Settings, engine_cpus: int, engine_mb: int) -> int:
    """Return how many setups may run at the same time. By default they may take half of the engine's memory."""
    if settings.max_setups is not None:
        return settings.max_setups
    return max(1, min(engine_cpus, engine_mb // 2 // settings.setup_memory_mb))


def build_completion(shared: SharedParts) -> CompletionWriter:
    """Build the part that writes the ends of runs."""
    return CompletionWriter(
        log=shared.log,
        blobs=shared.blobs,
        replica=shared.replica_id,
        output_bytes_max=shared.settings.max_output_bytes,
        setup_allowed=shared.settings.setup_network != "none",
        corrupt_logs=shared.corrupt_logs,
    )


def output_limits(shared: SharedParts) -> OutputLimits:
    """Return the limits on what a program may print, show and return as files."""
    settings = shared.settings
    return OutputLimits(
        output_bytes=settings.max_output_bytes,
        display_bytes=display_bytes(settings, shared.blobs),
        files=OutputFileLimits(limits=_file_limits(settings, shared.blobs), spool_dir=settings.data_dir),
    )


def build_runner(shared: SharedParts, pool: Pool, completion: CompletionWriter) -> Runner:
    """Build the service that handles runs from their claim to their end."""
    settings = shared.settings
    return Runner(
        RunnerConfig(
            replica=shared.replica_id,
            engine=shared.identity.id,
            limits=output_limits(shared),
            leave_running=settings.consul_addr is not None,
        ),
        log=shared.log,
        pool=pool,
        slots=shared.slots,
        active_runs=shared.active_runs,
        completion=completion,
        in_doubt=shared.in_doubt,
        meter=shared.meter,
    )


def build_submissions(shared: SharedParts, preparation: Preparation, runner: Runner) -> Submissions:
    """Build the service that accepts uploads."""
    settings = shared.settings
    return Submissions(
        SubmissionConfig(
            policy=evolve(policy_of(settings, shared.identity.cpus), webhooks=shared.webhooks.policy),
            members_max=settings.max_archive_members,
            queue_timeout_seconds=settings.queue_timeout,
            spool_dir=settings.data_dir,
            local_claim=settings.local_claim,
        ),
        log=shared.log,
        blobs=shared.blobs,
        slots=shared.slots,
        lane=shared.lane,
        active_runs=shared.active_runs,
        preparation=preparation,
        runner=runner,
        meter=shared.meter,
    )


def build_inbox(shared: SharedParts, preparation: Preparation, runner: Runner) -> InboxWorker:
    """Build the service that handles the inbox of this replica."""
    return InboxWorker(
        log=shared.log,
        slots=shared.slots,
        lane=shared.lane,
        active_runs=shared.active_runs,
        preparation=preparation,
        runner=runner,
        corrupt_logs=shared.corrupt_logs,
        queue_timeout_seconds=shared.settings.queue_timeout,
        slot_wait_seconds=min(SLOT_WAIT_SECONDS, shared.settings.queue_timeout),
    )


def build_reconciler(shared: SharedParts) -> Reconciler:
    """Build the services that only the leader runs: reconciliation and retention; and pass it the webhooks."""
    settings = shared.settings
    adoption_seconds = settings.adoption_grace if settings.consul_addr is not None else 0.0
    return Reconciler(
        ReconcilerConfig(
            replica=shared.replica_id,
            queue_timeout_seconds=settings.queue_timeout,
            adoption_seconds=adoption_seconds,
        ),
        log=shared.log,
        membership=shared.stores.membership,
        slots=shared.slots,
        lane=shared.lane,
        active_runs=shared.active_runs,
        retention=Retention(
            log=shared.log,
            blobs=shared.blobs,
            corrupt_logs=shared.corrupt_logs,
            ttl_seconds=settings.cleanup_ttl,
            webhook_seconds=settings.webhook_max_age,
            meter=shared.meter,
        ),
        webhooks=shared.webhooks,
        sessions=SessionReconciler(
            shared.session_log,
            adoption_seconds=adoption_seconds,
            ttl_seconds=settings.cleanup_ttl,
            corrupt_logs=shared.corrupt_logs,
        ),
        corrupt_logs=shared.corrupt_logs,
    )


def watch_gauges(shared: SharedParts, reconciler: Reconciler, isolation_check: IsolationCheck) -> None:
    """Register the gauges that do not belong to a single service."""
    watch = shared.meter.watch
    watch(LEADER, reconciler.leading.locked)
    watch(BACKLOG, lambda: reconciler.backlog)
    watch(WEBHOOKS_OUTSTANDING, lambda: shared.webhooks.waiting)
    watch(MEMBER, lambda: shared.stores.membership.is_member)
    watch(ACTIVE_EXECUTIONS, lambda: len(shared.active_runs))
    watch(CORRUPT_EXECUTIONS, lambda: len(shared.corrupt_logs))
    watch(ISOLATION_CHECK_PASSED, lambda: isolation_check.passed)
    watch(BUILD_INFO, lambda: 1, __version__, platform.python_version(), shared.identity.version)


def display_bytes(settings: Settings, blobs: BlobStore) -> int:
    """Return the limit of a run's displays. They are in one blob with its output, whose size the store may limit."""
    asked = settings.max_display_bytes
    return asked if blobs.bytes_max is None else min(asked, blobs.bytes_max // 2)


def _file_limits(settings: Settings, blobs: BlobStore) -> FileLimits:
    """Return the limits of output files. The files of a run are one blob, whose size the store may limit."""
    asked = settings.max_files_mb * MEBIBYTE
    return FileLimits(bytes_max=asked if blobs.bytes_max is None else min(asked, blobs.bytes_max))
