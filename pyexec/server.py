"""Serves until told to stop, and takes everything down in order."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable

import anyio
from aiohttp import web
from attrs import define, field

from pyexec.adapters.prometheus import PrometheusMeter
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError, ExecutorError, SettingsError, Unavailable, first_error
from pyexec.logs import Logs
from pyexec.services.loop_lag import measure_loop_lag
from pyexec.settings import Settings
from pyexec.web.context import GATE, TOKENS, Gate
from pyexec.web.handlers.metrics import EXPOSITION
from pyexec.web.handlers.pages import add_pages
from pyexec.web.middleware.access import ACCESS_LOG, METER, note_access
from pyexec.web.middleware.errors import answer_errors, require_token
from pyexec.web.middleware.handler_task import in_scope
from pyexec.web.openapi.document import openapi_document, terms_of
from pyexec.web.routes import ROUTES, add_routes
from pyexec.wiring.replica import Replica, open_replica

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
READ_BUFFER_BYTES = 256 * 1024
ANSWER_SECONDS = 2.0
"""How long answers under way may take once the last program has ended."""


async def serve(settings: Settings, logs: Logs) -> None:
    """Serves until SIGTERM or SIGINT: then no new work, running programs get `stop_timeout`, and all is removed.

    Waits for Docker and Consul if they are not there yet; `/ready` says so meanwhile. Raises `SettingsError`."""
    await Server(settings, logs, PrometheusMeter()).run()


class Stop:
    """What the signals do to a server that serves."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.drain = anyio.CancelScope()


@define
class Server:
    """One process: it listens all the time, and serves as soon as what a replica needs is there."""

    settings: Settings
    logs: Logs
    meter: PrometheusMeter
    gate: Gate = field(factory=lambda: Gate(waiting_for="the server is starting"))
    stop: Stop = field(factory=Stop)

    async def run(self) -> None:
        """Until it is told to stop. Raises `SettingsError`."""
        http, url = await _start_http(self.settings, self.gate, self.meter)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_signals, tasks.cancel_scope, name="signals")
                tasks.start_soon(measure_loop_lag, self.meter, name="lag of the event loop")
                await self._serve_patiently(http, url)
                tasks.cancel_scope.cancel()
        finally:
            await http.cleanup()

    async def _watch_signals(self, starting: anyio.CancelScope) -> None:
        """The first signal stops in order, or cancels the start; the second ends the drain."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                if self.gate.context is None:
                    starting.cancel()
                elif self.stop.asked.is_set():
                    self.stop.drain.cancel()
                else:
                    self.stop.asked.set()

    async def _serve_patiently(self, http: web.AppRunner, url: str) -> None:
        """Serves as soon as what a replica needs is there."""
        while True:
            failure: BaseExceptionGroup[ExecutorError] | None = None
            replica_id = f"rep_{os.urandom(8).hex()}"
            self.logs.set_replica(replica_id)
            try:
                async with open_replica(self.settings, url, replica_id, self.meter) as replica:
                    await _serve_replica(replica, self.gate, url, self.stop, self.settings.stop_timeout)
                    await http.cleanup()  # answers under way still need the replica
            except* (Unavailable, EngineError) as errors:
                failure = errors
            if failure is None:
                return
            if self.gate.context is not None:
                raise failure
            await self._wait_for_next_try(first_error(failure))

    async def _wait_for_next_try(self, error: BaseException) -> None:
        """Says what is missing, once for each thing that is."""
        missing = f"the server is starting: {error}"
        if self.gate.waiting_for != missing:
            self.gate.waiting_for = missing
            logger.warning("cannot start yet, trying again every %g s: %s", RETRY_SECONDS, error)
        await anyio.sleep(RETRY_SECONDS)


async def _within(scope: anyio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()


async def _start_http(settings: Settings, gate: Gate, meter: PrometheusMeter) -> tuple[web.AppRunner, str]:
    """The listening server and its address; raises `SettingsError` when the address cannot be used."""
    app = web.Application(
        middlewares=[in_scope, note_access, answer_errors, require_token],
        client_max_size=settings.max_metadata_mb * MEBIBYTE,
    )
    app[GATE] = gate
    app[TOKENS] = settings.api_tokens
    app[METER], app[EXPOSITION] = meter, meter
    app[ACCESS_LOG] = settings.access_log
    add_routes(app)
    add_pages(app, openapi_document(ROUTES, terms_of(settings)))
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
        await replica.isolation_check.at_start()
        tasks.start_soon(replica.isolation_check.refuse, name="proof")
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
