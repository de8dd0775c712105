"""The server program: serves until it is told to stop, and takes everything down in order."""

import asyncio
import logging
import signal
import sys
from importlib.metadata import version

import anyio
import uvloop
from aiohttp import web

from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import ExecutorError, SettingsError
from pyexec.replica import open_replica
from pyexec.settings import Settings, describe_settings, from_environment
from pyexec.web.context import CONTEXT
from pyexec.web.errors import answer_errors, require_token
from pyexec.web.routes import add_routes

logger = logging.getLogger(__name__)

READ_BUFFER_BYTES = 256 * 1024
ANSWER_SECONDS = 2.0
"""How long answers under way may take once the last program has ended."""


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT: then no new work, running programs get `stop_timeout`, and all is removed."""
    async with open_replica(settings) as replica:
        app = web.Application(
            middlewares=[answer_errors, require_token],
            client_max_size=settings.max_metadata_mb * MEBIBYTE,
        )
        app[CONTEXT] = replica.context
        add_routes(app)
        site_runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            read_bufsize=READ_BUFFER_BYTES,
            shutdown_timeout=ANSWER_SECONDS,
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(replica.runner.serve, name="runner")
            await replica.recovery.recover(alive={replica.runner.config.replica})
            tasks.start_soon(replica.reconciler.run, name="reconciler")
            tasks.start_soon(replica.pool.keep_filled, name="pool")
            await site_runner.setup()
            try:
                await _listen(site_runner, settings)
                await _stop_signal()
                logger.info("stopping: no new work is taken")
                await replica.runner.drain(settings.stop_timeout)
            finally:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await site_runner.cleanup()


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
