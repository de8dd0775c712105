"""The server program: puts the parts together, serves until it is told to stop, and takes everything down."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

import anyio
import uvloop
from aiohttp import web
from attrs import frozen

from pyexec.adapters.blobs import FileBlobs
from pyexec.adapters.docker import DockerEngine
from pyexec.adapters.embedded import EmbeddedLog
from pyexec.domain.spec import MEBIBYTE, Policy
from pyexec.errors import EngineError, ExecutorError, SettingsError
from pyexec.ports import ContainerSpec, EngineIdentity
from pyexec.sandbox import protocol
from pyexec.sandbox.pool import Pool, SandboxKind
from pyexec.services.kill import Kills
from pyexec.services.live import Live
from pyexec.services.query import Queries
from pyexec.services.reconciler import Reconciler, ReconcilerConfig
from pyexec.services.runner import Runner, RunnerConfig
from pyexec.services.slots import Slots
from pyexec.services.submit import Submissions, SubmitConfig
from pyexec.settings import Settings, describe_settings, from_environment
from pyexec.web.context import CONTEXT, Context, WebLimits
from pyexec.web.errors import answer_errors, require_token
from pyexec.web.routes import add_routes
from pyexec.web.scope import in_scope

logger = logging.getLogger(__name__)

SUPERVISOR_MB = 32
"""What a sandbox takes beside the program's memory and files: the supervisor, and the kernel's own."""
READ_BUFFER_BYTES = 256 * 1024


@frozen(kw_only=True)
class Replica:
    """One running server's parts."""

    settings: Settings
    log: EmbeddedLog
    blobs: FileBlobs
    engine: DockerEngine
    pool: Pool
    slots: Slots
    runner: Runner
    reconciler: Reconciler
    context: Context


@asynccontextmanager
async def open_replica(settings: Settings) -> AsyncIterator[Replica]:
    """Builds the parts in the order in which they need each other; nothing is left of them afterwards."""
    async with AsyncExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        log = await stack.enter_async_context(await EmbeddedLog.open(settings.data_dir))
        blobs = await FileBlobs.open(settings.data_dir / "blobs")
        engine = await DockerEngine.connect(settings.engine_host(), runtime=settings.docker_runtime)
        stack.push_async_callback(engine.close)
        identity = await engine.identify()
        _refuse_unenforced(identity, settings)
        replica_id = f"rep_{os.urandom(8).hex()}"
        deployment = {"pyexec.deployment": log.deployment}
        await _remove_leftovers(engine, deployment)
        labels = {**deployment, "pyexec.replica": replica_id, "pyexec.engine": identity.id}
        stack.push_async_callback(partial(_remove_leftovers, engine, {"pyexec.replica": replica_id}))
        yield _assemble(
            settings,
            log,
            blobs,
            engine,
            RunnerConfig(replica=replica_id, engine=identity.id, output_bytes_max=settings.max_output_bytes),
            settings.policy(identity.cpus),
            labels,
        )


def _assemble(
    settings: Settings,
    log: EmbeddedLog,
    blobs: FileBlobs,
    engine: DockerEngine,
    identity: RunnerConfig,
    policy: Policy,
    labels: dict[str, str],
) -> Replica:
    overhead_mb = settings.tmp_mb + SUPERVISOR_MB
    standard = SandboxKind(
        image=policy.default_image,
        memory_mb=policy.defaults.memory_mb,
        disk_mb=policy.defaults.disk_mb,
        cpu_shares=policy.defaults.cpu_shares,
        cpus=policy.defaults.cpus,
        network=False,
    )
    live = Live()
    slots = Slots(
        concurrent_max=settings.max_concurrent,
        waiting_max=settings.max_queued,
        memory_mb_max=settings.memory_budget_mb(overhead_mb),
    )
    spec_of = partial(_container_spec, settings, labels, overhead_mb, protocol.command())
    pool = Pool(engine, kind=standard, size=settings.warm_pool, spec_of=spec_of)
    runner = Runner(identity, log=log, blobs=blobs, pool=pool, slots=slots, live=live)
    queries = Queries(log=log, blobs=blobs, live=live)
    reconciler = Reconciler(
        ReconcilerConfig(
            queue_timeout_seconds=settings.queue_timeout,
            cleanup_ttl_seconds=settings.cleanup_ttl,
            overhead_mb=overhead_mb,
        ),
        log=log,
        blobs=blobs,
        slots=slots,
        live=live,
        runner=runner,
    )
    submissions = Submissions(
        SubmitConfig(
            policy=policy,
            queue_timeout_seconds=settings.queue_timeout,
            members_max=settings.max_archive_members,
            overhead_mb=overhead_mb,
        ),
        log=log,
        blobs=blobs,
        slots=slots,
        live=live,
        runner=runner,
    )
    context = Context(
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
        tokens=settings.api_tokens,
    )
    return Replica(
        settings=settings,
        log=log,
        blobs=blobs,
        engine=engine,
        pool=pool,
        slots=slots,
        runner=runner,
        reconciler=reconciler,
        context=context,
    )


def _container_spec(
    settings: Settings, labels: dict[str, str], overhead_mb: int, command: tuple[str, ...], kind: SandboxKind
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


async def _remove_leftovers(engine: DockerEngine, labels: dict[str, str]) -> None:
    """Containers of ours that nobody owns any more. The data directory's lock says that no other server of this
    deployment is alive."""
    with anyio.CancelScope(shield=True):
        for container_id in await engine.list_containers(labels):
            try:
                await engine.remove_container(container_id)
            except EngineError as error:
                logger.error("container %s is left behind: %s", container_id[:12], error)


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT: then no new work, running programs get `stop_timeout`, and all is removed."""
    async with open_replica(settings) as replica:
        app = web.Application(
            middlewares=[answer_errors, require_token, in_scope],
            client_max_size=settings.max_metadata_mb * MEBIBYTE,
        )
        app[CONTEXT] = replica.context
        add_routes(app)
        site_runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            shutdown_timeout=settings.stop_timeout,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replica.runner.serve, settings.stop_timeout, name="runner")
            tasks.start_soon(replica.reconciler.run, name="reconciler")
            tasks.start_soon(replica.pool.keep_filled, name="pool")
            await site_runner.setup()
            try:
                await _listen(site_runner, settings)
                await _stop_signal()
                logger.info("stopping: no new work is taken")
            finally:
                with anyio.CancelScope(shield=True):
                    await site_runner.cleanup()
                tasks.cancel_scope.cancel()


async def _listen(site_runner: web.AppRunner, settings: Settings) -> None:
    site = web.TCPSite(site_runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        raise SettingsError(
            f"PYEXEC_PORT is {settings.port}; {settings.host}:{settings.port} cannot be used: {error.strerror}"
        ) from error
    host, port = site_runner.addresses[0][:2]
    print(f"listening on http://{host}:{port}", flush=True)


async def _stop_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


def main() -> None:
    """The entry point `python-executor-server`."""
    arguments = sys.argv[1:]
    if arguments == ["--help"]:
        print(f"python-executor-server: all settings are environment variables\n\n{describe_settings()}")
        return
    if arguments == ["--version"]:
        print(f"python-executor-server {version('python-executor')}")
        return
    if arguments:
        sys.exit(f"python-executor-server takes --help and --version, not {' '.join(arguments)}")
    try:
        settings = from_environment()
        logging.basicConfig(
            level=settings.log_level,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except* ExecutorError as errors:
        sys.exit(f"python-executor-server: {_first(errors)}")


def _first(group: BaseExceptionGroup[ExecutorError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
