"""One replica: build its parts, start them, and drain them at shutdown."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from attrs import evolve, frozen

from pyexec import __version__
from pyexec.adapters.data_dir import create_data_dir
from pyexec.adapters.docker.engine import DockerEngine
from pyexec.adapters.webhooks import HttpWebhooks
from pyexec.domain.spec import MEBIBYTE
from pyexec.domain.tenants import Tenants
from pyexec.metrics import NOOP_METER, Meter
from pyexec.ports import EngineIdentity, Member, WebhookSender
from pyexec.sandbox.environments.environments import Environments
from pyexec.sandbox.isolation_check import IsolationCheck
from pyexec.sandbox.pool.pool import Pool
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.cluster import Cluster
from pyexec.services.downloads import Downloads
from pyexec.services.executions import Executions
from pyexec.services.inbox import InboxWorker
from pyexec.services.output_spill import OutputSpill
from pyexec.services.output_store import OutputMemory
from pyexec.services.peer_monitor import PeerMonitor
from pyexec.services.preparation import Preparation
from pyexec.services.reconciler import Reconciler
from pyexec.services.recovery import REPLICA_LABEL, Recovery
from pyexec.services.replica_state import Checks, ReplicaReporter
from pyexec.services.runner import Runner
from pyexec.services.sessions.sessions import Sessions
from pyexec.services.shutdown import log_lost
from pyexec.services.submissions import Submissions
from pyexec.services.tracing import ExecutionTraces, StepMeter
from pyexec.settings import Settings
from pyexec.tenants_file import webhook_policy
from pyexec.web.context import Context, WebLimits
from pyexec.wiring.checks import build_checks
from pyexec.wiring.memory import describe_memory
from pyexec.wiring.sandboxes import (
    IndexSource,
    build_environments,
    build_pool,
    isolation_check_config,
    open_index,
    prepare_networks,
    security_options,
)
from pyexec.wiring.services import (
    SharedParts,
    build_completion,
    build_inbox,
    build_reconciler,
    build_runner,
    build_shared_parts,
    build_submissions,
    watch_gauges,
)
from pyexec.wiring.sessions import build_sessions
from pyexec.wiring.stores import Stores, open_embedded
from pyexec.wiring.tracing import open_traces

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class Replica:
    """The background tasks of a replica, and the services behind its API."""

    context: Context
    active_runs: ActiveRuns
    runner: Runner
    sessions: Sessions
    inbox: InboxWorker
    reconciler: Reconciler
    recovery: Recovery
    pool: Pool
    environments: Environments
    isolation_check: IsolationCheck
    output_spill: OutputSpill

    async def serve(
        self, on_ready: Callable[[], None], stop: anyio.Event, drain: anyio.CancelScope, drain_seconds: float
    ) -> None:
        """Start all parts, call `on_ready`, and serve until `stop` is set. Then drain: accept no new work, and wait
        until all runs have ended, at most `drain_seconds`. To end that wait early, cancel `drain`."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.environments.work.serve, name="environments")
            await tasks.start(self.runner.serve, name="runner")
            await tasks.start(self.sessions.serve, name="sessions")
            await self.isolation_check.run_at_startup()
            tasks.start_soon(self.isolation_check.wait_for_failure, name="isolation check")
            await self.recovery.recover_with_retries()
            await tasks.start(self.pool.serve, name="pool")
            reconciling = anyio.CancelScope()
            tasks.start_soon(_run_within, reconciling, self.reconciler.run, name="reconciler")
            tasks.start_soon(self.recovery.run, name="recovery")
            tasks.start_soon(self.inbox.run, name="inbox")
            tasks.start_soon(self.output_spill.run, name="output spill")
            tasks.start_soon(self.context.cluster.watch, name="members of the cluster")
            on_ready()
            await stop.wait()
            logger.info("shutting down: no new work is accepted")
            reconciling.cancel()
            with drain:
                await self.context.cluster.announce_drain()
                async with anyio.create_task_group() as draining:
                    draining.start_soon(self.runner.drain, drain_seconds, name="drain runs")
                    draining.start_soon(self.sessions.drain, drain_seconds, name="drain sessions")
            running = self.active_runs.all()
            tasks.cancel_scope.cancel()
        log_lost(running)


@asynccontextmanager
async def open_replica(
    settings: Settings, tenants: Tenants, address: str, replica_id: str, meter: Meter
) -> AsyncIterator[Replica]:
    """Connect to the engine, open the stores, join the members under `address`, and assemble the replica.

    At the end, remove all containers except those whose programs another replica may adopt. Raises `SettingsError` if
    the engine does not support a setting, `Unavailable` if it does not answer."""
    async with AsyncExitStack() as stack:
        traces = await stack.enter_async_context(open_traces(replica_id))
        if traces is not None:
            meter = StepMeter(meter, traces)
        engine = await DockerEngine.connect(
            settings.engine_host(),
            security_options(settings),
            settings.sandbox_uids,
            settings.docker_timeout,
            meter,
        )
        stack.push_async_callback(engine.close)
        identity = await engine.identify()
        await prepare_networks(settings, engine)
        stores = await _open_stores(stack, settings, replica_id, meter)
        if stores.copy_id is not None:  # the sandboxes and sessions of the original belong to another server
            identity = evolve(identity, id=f"{identity.id}+{stores.copy_id}")
        member = Member(
            replica=replica_id,
            engine=identity.id,
            address=settings.advertise_addr or address,
            slots=settings.max_concurrent,
            version=__version__,
        )
        await stores.membership.join(member)
        memory, fits = describe_memory(settings, identity.memory_mb)
        if not fits:
            logger.warning("%s", memory)
        isolation_check = IsolationCheck(engine, isolation_check_config(settings, identity, address))
        index = await stack.enter_async_context(open_index(settings))
        sender = HttpWebhooks(webhook_policy(settings, tenants))
        stack.push_async_callback(sender.close)
        replica = assemble(
            settings, member, engine, identity, stores, isolation_check, index, tenants, sender, meter, traces
        )
        stack.push_async_callback(replica.recovery.remove_own)
        yield replica


async def _open_stores(stack: AsyncExitStack, settings: Settings, replica_id: str, meter: Meter) -> Stores:
    """Open the stores that the settings name. Raises `SettingsError`, or `Unavailable` if one does not answer."""
    create_data_dir(settings.data_dir)
    if settings.consul_addr is None:
        return await open_embedded(stack, settings)
    # Imported here: the libraries take a tenth of a second, and a single server does not need them.
    from pyexec.wiring.consul import open_consul

    return await open_consul(stack, settings, settings.consul_addr, replica_id, meter)


def assemble(
    settings: Settings,
    member: Member,
    engine: DockerEngine,
    identity: EngineIdentity,
    stores: Stores,
    isolation_check: IsolationCheck,
    index: IndexSource,
    tenants: Tenants,
    sender: WebhookSender,
    meter: Meter = NOOP_METER,
    traces: ExecutionTraces | None = None,
) -> Replica:
    """Build all parts of a replica: sandboxes, preparation, runner, then the services that pass work to the runner."""
    replica_id = member.replica
    shared = build_shared_parts(settings, tenants, replica_id, identity, stores, sender, meter, traces)
    deployment_labels = {"pyexec.deployment": stores.deployment, "pyexec.engine": identity.id}
    labels = {**deployment_labels, REPLICA_LABEL: replica_id}
    environments = build_environments(settings, labels, engine, identity, isolation_check, index, meter)
    slots = shared.slots
    pool = build_pool(
        settings, labels, engine, identity, environments, lambda: slots.free < slots.size, meter
    )
    preparation = Preparation(
        replica=replica_id,
        log=shared.log,
        blobs=shared.blobs,
        pool=pool,
        environments=environments,
        meter=meter,
    )
    completion = build_completion(shared)
    runner = build_runner(shared, pool, completion)
    session_recovery = build_sessions(shared, engine, pool, preparation, completion, runner)
    reconciler = build_reconciler(shared)
    watch_gauges(shared, reconciler, isolation_check)
    submissions = build_submissions(shared, preparation, runner)
    checks = build_checks(shared, engine)
    reporter = ReplicaReporter(
        member=member,
        slots=shared.slots,
        lane=shared.lane,
        pool=pool,
        reconciler=reconciler,
        sessions=session_recovery.sessions,
        checks=checks,
        warnings=lambda: isolation_check.warnings,
    )
    cluster = Cluster(
        member=member,
        report=reporter.report,
        membership=stores.membership,
        peers=stores.peers,
        tenants=tenants,
        default_image=settings.default_image,
    )
    return Replica(
        context=_context(shared, cluster, checks, submissions, session_recovery.sessions, isolation_check),
        active_runs=shared.active_runs,
        runner=runner,
        sessions=session_recovery.sessions,
        inbox=build_inbox(shared, preparation, runner),
        reconciler=reconciler,
        recovery=Recovery(
            engine=engine,
            log=shared.log,
            runner=runner,
            sessions=session_recovery,
            in_doubt=shared.in_doubt,
            slots=shared.slots,
            membership=stores.membership,
            peer_monitor=PeerMonitor(member=member, membership=stores.membership, peers=stores.peers),
            corrupt_logs=shared.corrupt_logs,
            labels=deployment_labels,
        ),
        pool=pool,
        environments=environments,
        isolation_check=isolation_check,
        output_spill=shared.output_spill,
    )


def _context(
    shared: SharedParts,
    cluster: Cluster,
    checks: Checks,
    submissions: Submissions,
    sessions: Sessions,
    isolation_check: IsolationCheck,
) -> Context:
    settings = shared.settings
    executions = Executions(
        log=shared.log,
        blobs=shared.blobs,
        active_runs=shared.active_runs,
        peers=shared.stores.peers,
        corrupt_logs=shared.corrupt_logs,
        memory=OutputMemory(output_bytes_max=settings.max_output_bytes + settings.max_display_bytes),
    )
    return Context(
        submissions=submissions,
        sessions=sessions,
        executions=executions,
        downloads=Downloads(executions, shared.blobs),
        cluster=cluster,
        peers=shared.stores.peers,
        checks={"event log": shared.log.check, **checks},
        warnings=lambda: isolation_check.warnings,
        sandbox_reuse=settings.sandbox_reuse,
        limits=WebLimits(
            upload_bytes_max=settings.max_upload_mb * MEBIBYTE,
            metadata_bytes_max=settings.max_metadata_mb * MEBIBYTE,
            idle_seconds=settings.upload_idle_timeout,
        ),
        spool_dir=settings.data_dir,
        traces=shared.traces,
    )


async def _run_within(scope: anyio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()
