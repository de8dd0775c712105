"""One replica: the parts of a running server, put together in the order in which they need each other."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from attrs import frozen

from pyexec.adapters.blobs import FileBlobs
from pyexec.adapters.docker import DockerEngine
from pyexec.adapters.embedded import EmbeddedLog
from pyexec.domain.spec import MEBIBYTE, Policy, Spec
from pyexec.errors import SettingsError
from pyexec.ports import ContainerSpec, EngineIdentity
from pyexec.sandbox import protocol
from pyexec.sandbox.pool import Pool, SandboxKind
from pyexec.services.kill import Kills
from pyexec.services.live import Live
from pyexec.services.query import Queries
from pyexec.services.reconciler import Reconciler, ReconcilerConfig
from pyexec.services.recovery import REPLICA_LABEL, Recovery
from pyexec.services.runner import Runner, RunnerConfig, kind_of
from pyexec.services.slots import Slots
from pyexec.services.submit import Submissions, SubmitConfig
from pyexec.settings import Settings
from pyexec.web.context import Context, WebLimits

SUPERVISOR_MB = 32
"""What a sandbox takes beside the program's memory and files: the supervisor, and the kernel's own."""


@frozen(kw_only=True)
class Replica:
    """What runs as long as the server does, and what answers requests."""

    context: Context
    runner: Runner
    reconciler: Reconciler
    recovery: Recovery
    pool: Pool


@asynccontextmanager
async def open_replica(settings: Settings) -> AsyncIterator[Replica]:
    """Opens log, blobs and engine, and builds the services on them. At the end no container of its own is left.

    Raises `SettingsError` when the engine cannot enforce what a sandbox relies on, `Unavailable` when it is away."""
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(await EmbeddedLog.open(settings.data_dir))
        blobs = await FileBlobs.open(settings.data_dir / "blobs")
        engine = await DockerEngine.connect(settings.engine_host(), runtime=settings.docker_runtime)
        stack.push_async_callback(engine.close)
        engine_identity = await engine.identify()
        _refuse_unenforced(engine_identity, settings)
        deployment = {"pyexec.deployment": log.deployment, "pyexec.engine": engine_identity.id}
        replica_id = f"rep_{os.urandom(8).hex()}"
        identity = RunnerConfig(
            replica=replica_id, engine=engine_identity.id, output_bytes_max=settings.max_output_bytes
        )
        replica = _assemble(
            settings, log, blobs, engine, identity, settings.policy(engine_identity.cpus), deployment
        )
        stack.push_async_callback(replica.recovery.recover, alive=frozenset())
        yield replica


def _assemble(
    settings: Settings,
    log: EmbeddedLog,
    blobs: FileBlobs,
    engine: DockerEngine,
    identity: RunnerConfig,
    policy: Policy,
    deployment: Mapping[str, str],
) -> Replica:
    overhead_mb = settings.tmp_mb + SUPERVISOR_MB
    labels = {**deployment, REPLICA_LABEL: identity.replica}
    live = Live()
    slots = Slots(
        concurrent_max=settings.max_concurrent,
        waiting_max=settings.max_queued,
        memory_mb_max=settings.memory_budget_mb(overhead_mb),
        overhead_mb=overhead_mb,
    )
    pool = Pool(
        engine,
        kind=kind_of(Spec(docker_image=policy.default_image, limits=policy.defaults)),
        size=settings.warm_pool,
        spec_of=partial(_container_spec, settings, labels, overhead_mb, protocol.command()),
    )
    runner = Runner(identity, log=log, blobs=blobs, pool=pool, slots=slots, live=live)
    queries = Queries(log=log, blobs=blobs, live=live)
    submissions = Submissions(
        SubmitConfig(
            policy=policy,
            queue_timeout_seconds=settings.queue_timeout,
            members_max=settings.max_archive_members,
        ),
        log=log,
        blobs=blobs,
        slots=slots,
        live=live,
        runner=runner,
    )
    reconciler = Reconciler(
        ReconcilerConfig(
            queue_timeout_seconds=settings.queue_timeout, cleanup_ttl_seconds=settings.cleanup_ttl
        ),
        log=log,
        blobs=blobs,
        slots=slots,
        live=live,
        runner=runner,
    )
    return Replica(
        context=Context(
            submissions=submissions,
            queries=queries,
            kills=Kills(log=log, live=live, queries=queries),
            checks={"event log": log.check, "docker": engine.check},
            limits=WebLimits(
                upload_bytes_max=settings.max_upload_mb * MEBIBYTE,
                metadata_bytes_max=settings.max_metadata_mb * MEBIBYTE,
                idle_seconds=settings.upload_idle_timeout,
            ),
            spool_dir=settings.data_dir,
        ),
        runner=runner,
        reconciler=reconciler,
        recovery=Recovery(engine=engine, log=log, runner=runner, slots=slots, labels=deployment),
        pool=pool,
    )


def _container_spec(
    settings: Settings,
    labels: Mapping[str, str],
    overhead_mb: int,
    command: Sequence[str],
    kind: SandboxKind,
) -> ContainerSpec:
    """The container behind a kind of sandbox. The memory wall holds memory and files together, because files on
    a tmpfs are memory; the supervisor tells them apart inside."""
    return ContainerSpec(
        image=kind.image,
        command=command,
        labels=labels,
        memory_bytes=(kind.memory_mb + kind.disk_mb + overhead_mb) * MEBIBYTE,
        work_bytes=kind.disk_mb * MEBIBYTE,
        tmp_bytes=settings.tmp_mb * MEBIBYTE,
        shm_bytes=kind.memory_mb * MEBIBYTE,
        log_bytes=2 * settings.max_output_bytes + MEBIBYTE,
        pids_max=settings.pids_max,
        cpu_shares=kind.cpu_shares,
        cpus=kind.cpus,
        network=settings.run_network if kind.network else None,
    )


def _refuse_unenforced(identity: EngineIdentity, settings: Settings) -> None:
    missing = [name for name in identity.unenforced if name not in settings.allow_unenforced]
    if missing:
        raise SettingsError(
            f"this Docker engine cannot enforce {', '.join(missing)}; "
            f"PYEXEC_ALLOW_UNENFORCED={','.join(missing)} accepts that"
        )
