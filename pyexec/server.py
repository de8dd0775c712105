"""The server process: listen, serve as soon as Docker and Consul answer, shut down gracefully."""

import ctypes
import gc
import logging
import os
import signal
from functools import partial
from time import perf_counter

import anyio
from aiohttp import web
from attrs import define, field

from pyexec.adapters.prometheus import PrometheusMeter
from pyexec.addresses import join_host_port
from pyexec.domain.tenants import Tenants
from pyexec.errors import EngineError, ExecutorError, SettingsError, Unavailable, first_error
from pyexec.logs import Logs
from pyexec.metrics import LOOP_LAG_SECONDS, Meter
from pyexec.settings import Settings
from pyexec.tenants_file import read_tenants
from pyexec.web.application import create_application
from pyexec.web.connections import HttpRunner
from pyexec.web.context import Context, ServerState
from pyexec.wiring.replica import open_replica

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
LAG_SAMPLE_SECONDS = 1.0
READ_BUFFER_BYTES = 256 * 1024
GC_YOUNG_OBJECTS = 10_000
"""New objects until the next collection of garbage. With Python's default of 700, collections took an eighth of the
processor time of a small run (2026-11-27)."""
LARGE_BLOCK_BYTES = 256 * 1024
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
RESPONSE_SECONDS = 2.0
"""How long responses in progress may take after the last program has ended."""


async def serve(settings: Settings, logs: Logs) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP. Then accept no new work, give running programs `stop_timeout`, clean up.

    Waits for Docker and Consul if they do not answer yet; `/ready` reports that meanwhile. Raises `SettingsError`."""
    await Server(settings, read_tenants(settings), logs, PrometheusMeter()).run()


class Stop:
    """The state of a shutdown: the first signal sets `requested`, a SIGINT after it cancels `drain`."""

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.drain = anyio.CancelScope()


@define
class Server:
    """The server of this process. It listens at once, and serves as soon as a replica can be opened."""

    settings: Settings
    tenants: Tenants
    logs: Logs
    meter: PrometheusMeter
    state: ServerState = field(factory=lambda: ServerState(not_ready_reason="the server is starting"))
    stop: Stop = field(factory=Stop)

    async def run(self) -> None:
        """Serve until a signal arrives. Raises `SettingsError`."""
        http, url = await _start_http(self.settings, self.tenants, self.state, self.meter)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_signals, tasks.cancel_scope, name="signals")
                tasks.start_soon(_measure_loop_lag, self.meter, name="event loop lag")
                await self._serve_with_retries(http, url)
                tasks.cancel_scope.cancel()
        finally:
            await http.cleanup()
        logger.info("stopped")

    async def _watch_signals(self, starting: anyio.CancelScope) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP. The first one cancels the start, or begins the shutdown. A later SIGINT,
        such as a second Ctrl-C, ends the drain. A later SIGTERM does not: Nomad may send it twice, and ends a drain
        with SIGKILL. The kernel sends SIGHUP when the server's terminal closes; under `nohup`, it stays ignored."""
        handled = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        with anyio.open_signal_receiver(*handled) as signals:
            async for number in signals:
                if self.state.context is None:
                    starting.cancel()
                elif not self.stop.requested.is_set():
                    self.stop.requested.set()
                elif number == signal.SIGINT:
                    self.stop.drain.cancel()

    async def _serve_with_retries(self, http: web.AppRunner, url: str) -> None:
        """Serve as soon as a replica can be opened; retry until then."""
        while True:
            failure: BaseExceptionGroup[ExecutorError] | None = None
            replica_id = f"rep_{os.urandom(8).hex()}"
            self.logs.set_replica(replica_id)
            self.state.replica = replica_id
            try:
                async with open_replica(self.settings, self.tenants, url, replica_id, self.meter) as replica:
                    on_ready = partial(self._open, replica.context, url)
                    drain_seconds = self.settings.stop_timeout
                    await replica.serve(on_ready, self.stop.requested, self.stop.drain, drain_seconds)
                    await http.cleanup()  # responses in progress still need the replica
            except* (Unavailable, EngineError) as errors:
                failure = errors
            if failure is None:
                return
            if self.state.context is not None:
                raise failure
            await self._wait_before_retry(first_error(failure))

    def _open(self, context: Context, url: str) -> None:
        self.state.context = context
        _tune_garbage_collection()
        _return_large_blocks()
        if self.settings.is_open:
            logger.warning("anyone who can reach %s can run programs; set PYEXEC_API_TOKENS", url)
        print(f"listening on {url}", flush=True)

    async def _wait_before_retry(self, error: BaseException) -> None:
        """Sleep. Before that, log `error` and show it in /ready, unless it is the same as last time."""
        missing = f"the server is starting: {error}"
        if self.state.not_ready_reason != missing:
            self.state.not_ready_reason = missing
            logger.warning("cannot start yet; retrying every %g s: %s", RETRY_SECONDS, error)
        await anyio.sleep(RETRY_SECONDS)


async def _start_http(
    settings: Settings, tenants: Tenants, state: ServerState, meter: PrometheusMeter
) -> tuple[web.AppRunner, str]:
    """Return the listening server and its address. Raises `SettingsError` if it cannot listen there."""
    app = create_application(settings, state, meter, exposition=meter, tenants=tenants)
    http = HttpRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        shutdown_timeout=RESPONSE_SECONDS,
        lingering_time=0,  # `drain_body` does that
    )
    await http.setup()
    try:
        await web.TCPSite(http, settings.host, settings.port).start()
    except OSError as error:
        await http.cleanup()
        # asyncio's own text repeats the address; the resolver's errors have numbers below 0.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        address = join_host_port(settings.host, settings.port)
        raise SettingsError(
            f"cannot listen on {address}: {reason}; set PYEXEC_HOST and PYEXEC_PORT"
        ) from error
    host, port = http.addresses[0][:2]
    return http, f"http://{join_host_port(host, port)}"


def _tune_garbage_collection() -> None:
    """Exclude what exists now, which is mostly code, from later collections, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _return_large_blocks() -> None:
    """Let the C library return a large block to the kernel as soon as it is freed.

    By default, glibc keeps blocks that are as large as any that was freed before, up to 32 MiB. After 8,000 programs on
    a busy machine, it kept 46 MiB; with a fixed limit 17 MiB (2026-11-28). Other C libraries have no `mallopt`."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


async def _measure_loop_lag(meter: Meter) -> None:
    """Measure by how much the event loop delays a timer, until cancelled."""
    while True:
        begun = perf_counter()
        await anyio.sleep(LAG_SAMPLE_SECONDS)
        meter.observe(LOOP_LAG_SECONDS, max(0.0, perf_counter() - begun - LAG_SAMPLE_SECONDS))
