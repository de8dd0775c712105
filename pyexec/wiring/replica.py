"""One replica: the parts of a running server, put together in the order in which they need each other."""

import platform
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from attrs import frozen

from pyexec import __version__
from pyexec.adapters.docker.engine import DockerEngine
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import Unavailable
from pyexec.metrics import (
    BACKLOG,
    BUILD_INFO,
    DAMAGED,
    LEADER,
    LIMITS_PROVEN,
    LIVE,
    MEMBER,
    UNMEASURED,
    Meter,
)
from pyexec.ports import EngineIdentity, Member, Membership
from pyexec.sandbox.environments.environments import Environments, EnvironmentsConfig
from pyexec.sandbox.environments.setup import Setup
from pyexec.sandbox.isolation.isolation_check import IsolationCheck
from pyexec.sandbox.pool.pool import Pool
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.admission import Admission
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.downloads import Downloads
from pyexec.services.inbox import PATIENCE_SECONDS, InboxAttendant
from pyexec.services.kill import Kills
from pyexec.services.metered_log import MeteredLog
from pyexec.services.output_files import OutputFileLimits
from pyexec.services.preparation import Preparation
from pyexec.services.query import Queries
from pyexec.services.reconciler import Reconciler, ReconcilerConfig
from pyexec.services.recovery import REPLICA_LABEL, Recovery
from pyexec.services.run_monitor import Bounds
from pyexec.services.runner import Runner, RunnerConfig
from pyexec.services.slots import Slots
from pyexec.services.submissions import Submissions, SubmitConfig
from pyexec.settings import Settings
from pyexec.web.context import Context, WebLimits
from pyexec.wiring.configs import (
    WAITING_MB,
    container_spec,
    file_limits,
    isolation,
    isolation_check_config,
    networks,
    overhead_mb,
    setup_config,
    standard_kind,
)
from pyexec.wiring.stores import Stores, open_stores


@frozen(kw_only=True)
class Replica:
    """What runs as long as the server does, and what answers requests."""

    context: Context
    membership: Membership
    runner: Runner
    inbox: InboxAttendant
    reconciler: Reconciler
    recovery: Recovery
    pool: Pool
    environments: Environments
    isolation_check: IsolationCheck


@asynccontextmanager
async def open_replica(
    settings: Settings, address: str, replica_id: str, meter: Meter
) -> AsyncIterator[Replica]:
    """Opens stores and engine, joins the members under `address`, and builds the services. At the end no container
    of its own is left, but those of programs that another replica may adopt.

    Raises `SettingsError` when the engine has not what the settings ask for, `Unavailable` when it is away."""
    async with AsyncExitStack() as stack:
        engine = await DockerEngine.connect(
            settings.engine_host(), isolation(settings), settings.docker_timeout, meter
        )
        stack.push_async_callback(engine.close)
        engine_identity = await engine.identify()
        for network in networks(settings):
            await engine.ensure_network(network)
        stores = await stack.enter_async_context(open_stores(settings, replica_id, meter))
        await stores.membership.join(
            Member(
                replica=replica_id,
                engine=engine_identity.id,
                address=settings.advertise_addr or address,
                slots=settings.max_concurrent,
                version=__version__,
            )
        )
        identity = RunnerConfig(
            replica=replica_id,
            engine=engine_identity.id,
            bounds=Bounds(
                output_bytes=settings.max_output_bytes,
                files=OutputFileLimits(
                    limits=file_limits(settings, stores.blobs), spool_dir=settings.data_dir
                ),
            ),
            leave_running=settings.consul_addr is not None,
        )
        isolation_check = IsolationCheck(engine, isolation_check_config(settings, engine_identity, address))
        replica = _assemble(settings, stores, engine, engine_identity, identity, isolation_check, meter)
        stack.push_async_callback(replica.recovery.remove_own)
        yield replica


def _assemble(
    settings: Settings,
    stores: Stores,
    engine: DockerEngine,
    engine_identity: EngineIdentity,
    identity: RunnerConfig,
    isolation_check: IsolationCheck,
    meter: Meter = UNMEASURED,
) -> Replica:
    policy = settings.policy(engine_identity.cpus)
    active_runs, corrupt_logs = ActiveRuns(), CorruptLogReporter()
    log, blobs = MeteredLog(stores.log, active_runs, meter), stores.blobs
    deployment = {"pyexec.deployment": stores.deployment, "pyexec.engine": identity.engine}
    labels = {**deployment, REPLICA_LABEL: identity.replica}
    slots = _slots(settings, engine_identity, meter)
    environments = _environments(settings, labels, engine, engine_identity, isolation_check, meter)
    pool = Pool(
        engine,
        standard=standard_kind(policy),
        size=min(settings.warm_pool, settings.warm_memory_mb // WAITING_MB),
        parallel=engine_identity.cpus,
        image_of=environments.get_image,
        spec_of=partial(container_spec, settings, labels),
        busy=lambda: slots.free < slots.size,
        meter=meter,
    )
    preparation = Preparation(
        replica=identity.replica, log=log, blobs=blobs, pool=pool, environments=environments, meter=meter
    )
    runner = Runner(
        identity,
        log=log,
        blobs=blobs,
        preparation=preparation,
        slots=slots,
        active_runs=active_runs,
        corrupt_logs=corrupt_logs,
        meter=meter,
    )
    queries = Queries(
        log=log, blobs=blobs, active_runs=active_runs, peers=stores.peers, corrupt_logs=corrupt_logs
    )
    submissions = Submissions(
        SubmitConfig(
            policy=policy,
            members_max=settings.max_archive_members,
            spool_dir=settings.data_dir,
            local_claim=settings.local_claim == "on",
        ),
        log=log,
        blobs=blobs,
        slots=slots,
        active_runs=active_runs,
        admission=Admission(
            slots=slots,
            preparation=preparation,
            queue_timeout_seconds=settings.queue_timeout,
            meter=meter,
        ),
        runner=runner,
        meter=meter,
    )
    reconciler = Reconciler(
        ReconcilerConfig(
            replica=identity.replica,
            queue_timeout_seconds=settings.queue_timeout,
            cleanup_ttl_seconds=settings.cleanup_ttl,
            adoption_seconds=settings.adoption_grace if settings.consul_addr is not None else 0.0,
        ),
        log=log,
        blobs=blobs,
        membership=stores.membership,
        slots=slots,
        active_runs=active_runs,
        corrupt_logs=corrupt_logs,
    )
    _watch(meter, engine_identity, stores.membership, reconciler, active_runs, corrupt_logs, isolation_check)
    return Replica(
        context=Context(
            submissions=submissions,
            queries=queries,
            kills=Kills(log=log, active_runs=active_runs, queries=queries),
            downloads=Downloads(queries, blobs),
            checks={
                "server": partial(_check_open, slots),
                "event log": log.check,
                "docker": engine.check,
                "membership": partial(_check_member, stores.membership),
            },
            warnings=lambda: isolation_check.warnings,
            limits=_web_limits(settings),
            spool_dir=settings.data_dir,
        ),
        membership=stores.membership,
        runner=runner,
        inbox=InboxAttendant(
            log=log,
            slots=slots,
            active_runs=active_runs,
            runner=runner,
            corrupt_logs=corrupt_logs,
            patience_seconds=min(PATIENCE_SECONDS, settings.queue_timeout),
        ),
        reconciler=reconciler,
        recovery=Recovery(
            engine=engine,
            log=log,
            runner=runner,
            slots=slots,
            membership=stores.membership,
            corrupt_logs=corrupt_logs,
            labels=deployment,
        ),
        pool=pool,
        environments=environments,
        isolation_check=isolation_check,
    )


def _slots(settings: Settings, machine: EngineIdentity, meter: Meter) -> Slots:
    beside = overhead_mb(settings)
    return Slots(
        concurrent_max=settings.max_concurrent,
        waiting_max=settings.max_queued,
        memory_mb_max=settings.memory_budget_mb(beside, machine.memory_mb),
        overhead_mb=beside,
        meter=meter,
    )


def _environments(
    settings: Settings,
    labels: Mapping[str, str],
    engine: DockerEngine,
    machine: EngineIdentity,
    isolation_check: IsolationCheck,
    meter: Meter,
) -> Environments:
    return Environments(
        engine.images,
        Setup(engine, setup_config(settings, labels)),
        EnvironmentsConfig(
            cache_bytes_max=settings.env_cache_mb * MEBIBYTE,
            age_seconds_max=settings.env_max_age,
            architecture=machine.architecture,
        ),
        isolation_check.ensure_passed,
        meter=meter,
    )


def _web_limits(settings: Settings) -> WebLimits:
    return WebLimits(
        upload_bytes_max=settings.max_upload_mb * MEBIBYTE,
        metadata_bytes_max=settings.max_metadata_mb * MEBIBYTE,
        idle_seconds=settings.upload_idle_timeout,
    )


def _watch(
    meter: Meter,
    identity: EngineIdentity,
    membership: Membership,
    reconciler: Reconciler,
    active_runs: ActiveRuns,
    corrupt_logs: CorruptLogReporter,
    isolation_check: IsolationCheck,
) -> None:
    """What is read whenever somebody asks, and belongs to no service's own figures."""
    meter.watch(LEADER, reconciler.leading.locked)
    meter.watch(BACKLOG, lambda: reconciler.backlog)
    meter.watch(MEMBER, lambda: membership.held)
    meter.watch(LIVE, lambda: len(active_runs))
    meter.watch(DAMAGED, lambda: len(corrupt_logs))
    meter.watch(LIMITS_PROVEN, lambda: isolation_check.passed)
    meter.watch(BUILD_INFO, lambda: 1, __version__, platform.python_version(), identity.version)


async def _check_open(slots: Slots) -> None:
    """Raises `Unavailable` once no new work is taken."""
    if slots.closed:
        raise Unavailable("it is stopping; what runs may end, and no new work is taken")


async def _check_member(membership: Membership) -> None:
    """Raises `Unavailable` when others may take this replica for dead."""
    if not membership.held:
        raise Unavailable(
            "its session is lost; it writes nothing until it has another one, which it asks for"
        )
