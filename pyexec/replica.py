"""One replica: the parts of a running server, put together in the order in which they need each other."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

from attrs import frozen

from pyexec import __version__
from pyexec.adapters.docker import DockerEngine
from pyexec.adapters.docker_config import Isolation
from pyexec.domain.files import FileLimits
from pyexec.domain.spec import MEBIBYTE, Spec
from pyexec.ports import BlobStore, ContainerSpec, EngineIdentity, Member, Membership
from pyexec.sandbox import protocol
from pyexec.sandbox.environments import Environments, EnvironmentsConfig
from pyexec.sandbox.installer import installed_uv
from pyexec.sandbox.pool import Pool, SandboxKind
from pyexec.sandbox.proof import Proof, ProofConfig
from pyexec.sandbox.setup import Setup, SetupConfig
from pyexec.services.brought import FileRoom
from pyexec.services.damage import Damage
from pyexec.services.downloads import Downloads
from pyexec.services.inbox import PATIENCE_SECONDS, InboxAttendant
from pyexec.services.kill import Kills
from pyexec.services.live import Live
from pyexec.services.preparation import Preparation, kind_of
from pyexec.services.program import Bounds
from pyexec.services.query import Queries
from pyexec.services.reconciler import Reconciler, ReconcilerConfig
from pyexec.services.recovery import REPLICA_LABEL, Recovery
from pyexec.services.runner import Runner, RunnerConfig
from pyexec.services.slots import Slots
from pyexec.services.submit import Submissions, SubmitConfig
from pyexec.settings import Settings
from pyexec.stores import Stores, open_stores
from pyexec.web.context import Context, WebLimits

SETUP_PIDS = 1024
"""Installers compile with as many threads as the machine has processors, and more."""
DOCKER_PORTS = (2375, 2376)
"""Where an engine usually listens that does so for a network, without and with TLS."""
SUPERVISOR_MB = 32
"""What a sandbox takes beside the program's memory and files: the supervisor, and the kernel's own."""

WAITING_MB = 32
"""What a waiting sandbox takes of the machine's memory, at most (measured: 22)."""


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
    proof: Proof


@asynccontextmanager
async def open_replica(settings: Settings, address: str) -> AsyncIterator[Replica]:
    """Opens stores and engine, joins the members under `address`, and builds the services. At the end no container
    of its own is left, but those of programs that another replica may adopt.

    Raises `SettingsError` when the engine has not what the settings ask for, `Unavailable` when it is away."""
    async with AsyncExitStack() as stack:
        engine = await DockerEngine.connect(settings.engine_host(), _isolation(settings))
        stack.push_async_callback(engine.close)
        engine_identity = await engine.identify()
        for network in _networks(settings):
            await engine.ensure_network(network)
        replica_id = f"rep_{os.urandom(8).hex()}"
        stores = await stack.enter_async_context(open_stores(settings, replica_id))
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
                files=FileRoom(limits=_file_limits(settings, stores.blobs), spool_dir=settings.data_dir),
            ),
            leave_running=settings.consul_addr is not None,
        )
        proof = Proof(engine, _proof_config(settings, engine_identity, address))
        replica = _assemble(settings, stores, engine, engine_identity, identity, proof)
        stack.push_async_callback(replica.recovery.remove_own)
        yield replica


def _assemble(
    settings: Settings,
    stores: Stores,
    engine: DockerEngine,
    engine_identity: EngineIdentity,
    identity: RunnerConfig,
    proof: Proof,
) -> Replica:
    policy = settings.policy(engine_identity.cpus)
    log, blobs = stores.log, stores.blobs
    overhead_mb = settings.tmp_mb + SUPERVISOR_MB
    deployment = {"pyexec.deployment": stores.deployment, "pyexec.engine": identity.engine}
    labels = {**deployment, REPLICA_LABEL: identity.replica}
    live, damage = Live(), Damage()
    slots = Slots(
        concurrent_max=settings.max_concurrent,
        waiting_max=settings.max_queued,
        memory_mb_max=settings.memory_budget_mb(overhead_mb),
        overhead_mb=overhead_mb,
    )
    environments = Environments(
        engine.images,
        Setup(engine, _setup_config(settings, labels)),
        EnvironmentsConfig(
            cache_bytes_max=settings.env_cache_mb * MEBIBYTE,
            age_seconds_max=settings.env_max_age,
            architecture=engine_identity.architecture,
        ),
        proof.by,
    )
    command = protocol.command(standby=settings.standby == "on")
    pool = Pool(
        engine,
        standard=kind_of(Spec(docker_image=policy.default_image, limits=policy.defaults)),
        size=min(settings.warm_pool, settings.warm_memory_mb // WAITING_MB),
        parallel=engine_identity.cpus,
        image_of=environments.pulled,
        spec_of=partial(_container_spec, settings, labels, overhead_mb, command),
    )
    preparation = Preparation(
        replica=identity.replica, log=log, blobs=blobs, pool=pool, environments=environments
    )
    runner = Runner(
        identity, log=log, blobs=blobs, preparation=preparation, slots=slots, live=live, damage=damage
    )
    queries = Queries(log=log, blobs=blobs, live=live, peers=stores.peers, damage=damage)
    kills = Kills(log=log, live=live, queries=queries)
    submissions = Submissions(
        SubmitConfig(
            policy=policy,
            queue_timeout_seconds=settings.queue_timeout,
            members_max=settings.max_archive_members,
            spool_dir=settings.data_dir,
            local_claim=settings.local_claim == "on",
        ),
        log=log,
        blobs=blobs,
        slots=slots,
        live=live,
        preparation=preparation,
        runner=runner,
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
        live=live,
        damage=damage,
    )
    return Replica(
        context=Context(
            submissions=submissions,
            queries=queries,
            kills=kills,
            downloads=Downloads(queries, blobs),
            checks={"event log": log.check, "docker": engine.check},
            warnings=lambda: proof.warnings,
            limits=WebLimits(
                upload_bytes_max=settings.max_upload_mb * MEBIBYTE,
                metadata_bytes_max=settings.max_metadata_mb * MEBIBYTE,
                idle_seconds=settings.upload_idle_timeout,
            ),
            spool_dir=settings.data_dir,
        ),
        membership=stores.membership,
        runner=runner,
        inbox=InboxAttendant(
            log=log,
            slots=slots,
            live=live,
            runner=runner,
            damage=damage,
            patience_seconds=min(PATIENCE_SECONDS, settings.queue_timeout),
        ),
        reconciler=reconciler,
        recovery=Recovery(
            engine=engine,
            log=log,
            runner=runner,
            slots=slots,
            membership=stores.membership,
            damage=damage,
            labels=deployment,
        ),
        pool=pool,
        environments=environments,
        proof=proof,
    )


def _setup_config(settings: Settings, labels: Mapping[str, str]) -> SetupConfig:
    return SetupConfig(
        labels=labels,
        network=settings.setup_network,
        timeout_seconds=settings.setup_timeout,
        memory_bytes=settings.setup_memory_mb * MEBIBYTE,
        disk_bytes=settings.setup_disk_mb * MEBIBYTE,
        pids_max=max(settings.pids_max, SETUP_PIDS),
        uv=settings.uv or installed_uv(),
        index_url=settings.pip_index_url,
        ca_bundle=settings.ca_bundle,
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
        log_bytes=2 * (settings.max_output_bytes + settings.max_files_mb * MEBIBYTE) + MEBIBYTE,
        pids_max=settings.pids_max,
        cpu_shares=kind.cpu_shares,
        cpus=kind.cpus,
        network=settings.run_network if kind.network else None,
    )


def _file_limits(settings: Settings, blobs: BlobStore) -> FileLimits:
    """The files of a run are one blob, which the store must be able to take."""
    asked = settings.max_files_mb * MEBIBYTE
    return FileLimits(bytes_max=asked if blobs.bytes_max is None else min(asked, blobs.bytes_max))


def _networks(settings: Settings) -> frozenset[str]:
    return frozenset({settings.run_network, settings.setup_network} - {"none"})


def _isolation(settings: Settings) -> Isolation:
    """Raises `SettingsError` when the seccomp profile cannot be used."""
    return Isolation(runtime=settings.docker_runtime, seccomp_profile=settings.read_seccomp_profile())


def _proof_config(settings: Settings, identity: EngineIdentity, address: str) -> ProofConfig:
    consul = settings.consul_addr or ""
    services = (address, settings.engine_host(), consul if "://" in consul else f"//{consul}")
    ports = {port for service in services if (port := urlsplit(service).port)}
    return ProofConfig(
        default_image=settings.default_image,
        denied=identity.unenforced,
        accepted=settings.allow_unenforced,
        networks=_networks(settings),
        ports=sorted(ports | set(DOCKER_PORTS)),
        strict=settings.strict == "1",
    )
