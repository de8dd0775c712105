"""The server program: serves until it is told to stop, and takes everything down in order."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import anyio
import uvloop
from aiohttp import web

from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError, ExecutorError, SettingsError, Unavailable, first_of
from pyexec.replica import Replica, open_replica
from pyexec.settings import Settings, describe_settings, from_environment
from pyexec.web.context import GATE, TOKENS, Gate
from pyexec.web.errors import answer_errors, require_token
from pyexec.web.routes import add_routes
from pyexec.web.scope import in_scope

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
READ_BUFFER_BYTES = 256 * 1024
ANSWER_SECONDS = 2.0
"""How long answers under way may take once the last program has ended."""


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT: then no new work, running programs get `stop_timeout`, and all is removed.

    Waits for Docker and Consul if they are not there yet; `/ready` says so meanwhile. Raises `SettingsError`."""
    gate = Gate(waiting_for="the server is starting")
    stop = Stop()
    http, url = await _start_http(settings, gate)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch_signals, stop, tasks.cancel_scope, gate, name="signals")
            await _serve_patiently(settings, gate, http, url, stop)
            tasks.cancel_scope.cancel()
    finally:
        await http.cleanup()


class Stop:
    """What the signals do to a server that serves."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.drain = anyio.CancelScope()


async def _within(scope: anyio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()


async def _watch_signals(stop: Stop, starting: anyio.CancelScope, gate: Gate) -> None:
    """The first signal stops in order, or cancels the start; the second ends the drain."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if gate.context is None:
                starting.cancel()
            elif stop.asked.is_set():
                stop.drain.cancel()
            else:
                stop.asked.set()


async def _serve_patiently(settings: Settings, gate: Gate, http: web.AppRunner, url: str, stop: Stop) -> None:
    """Serves as soon as what a replica needs is there."""
    while True:
        failure: BaseExceptionGroup[ExecutorError] | None = None
        try:
            async with open_replica(settings, url) as replica:
                await _serve_replica(replica, gate, url, stop, settings.stop_timeout)
                await http.cleanup()  # answers under way still need the replica
        except* (Unavailable, EngineError) as errors:
            failure = errors
        if failure is None:
            return
        if gate.context is not None:
            raise failure
        await _wait_for_next_try(gate, first_of(failure))


async def _wait_for_next_try(gate: Gate, error: BaseException) -> None:
    """Says what is missing, once for each thing that is."""
    missing = f"the server is starting: {error}"
    if gate.waiting_for != missing:
        gate.waiting_for = missing
        logger.warning("cannot start yet, trying again every %g s: %s", RETRY_SECONDS, error)
    await anyio.sleep(RETRY_SECONDS)


async def _start_http(settings: Settings, gate: Gate) -> tuple[web.AppRunner, str]:
    """The listening server and its address; raises `SettingsError` when the address cannot be used."""
    app = web.Application(
        middlewares=[answer_errors, require_token, in_scope],
        client_max_size=settings.max_metadata_mb * MEBIBYTE,
    )
    app[GATE] = gate
    app[TOKENS] = settings.api_tokens
    add_routes(app)
    http = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        shutdown_timeout=ANSWER_SECONDS,
    )
    await http.setup()
    try:
        await web.TCPSite(http, settings.host, settings.port).start()
    except OSError as error:
        await http.cleanup()
        raise SettingsError(
            f"PYEXEC_PORT is {settings.port}; {settings.host}:{settings.port} cannot be used: {error.strerror}"
        ) from error
    host, port = http.addresses[0][:2]
    return http, f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _serve_replica(replica: Replica, gate: Gate, url: str, stop: Stop, drain_seconds: float) -> None:
    """Everything that runs as long as the server takes work."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(replica.environments.work.serve, name="environments")
        await tasks.start(replica.runner.serve, name="runner")
        await replica.proof.at_start()
        tasks.start_soon(replica.proof.refuse, name="proof")
        await replica.recovery.recover_first()
        await tasks.start(replica.pool.serve, name="pool")
        reconciling = anyio.CancelScope()
        tasks.start_soon(_within, reconciling, replica.reconciler.run, name="reconciler")
        tasks.start_soon(replica.recovery.run, name="recovery")
        tasks.start_soon(replica.inbox.run, name="inbox")
        gate.context = replica.context
        print(f"listening on {url}", flush=True)
        await stop.asked.wait()
        logger.info("stopping: no new work is taken")
        reconciling.cancel()
        with stop.drain:
            await replica.runner.drain(drain_seconds)
        tasks.cancel_scope.cancel()


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
    failure: BaseException | None = None
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
        failure = first_of(errors)
    if (
        failure is not None
    ):  # not raised above: Python 3.11.2 would wrap the exit in a group, with a traceback
        sys.exit(f"python-executor-server: {failure}")


if __name__ == "__main__":
    main()
