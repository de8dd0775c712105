"""Test what the signals of a shutdown do."""

import os
import signal
from typing import Any

import anyio

from pyexec.adapters.prometheus import PrometheusMeter
from pyexec.domain.tenants import Tenants
from pyexec.logs import Logs
from pyexec.server import Server
from pyexec.settings import Settings

PATIENCE_SECONDS = 30


def accepting_server() -> Server:
    """Return a server that accepts requests."""
    logs: Any = Logs
    server = Server(Settings(), Tenants(), logs, PrometheusMeter())
    context: Any = object()
    server.state.context = context
    return server


async def test_a_closed_terminal_begins_the_drain() -> None:
    server = accepting_server()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._watch_signals, tasks.cancel_scope, name="signals")
            await anyio.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGHUP)
            await server.stop.requested.wait()
            tasks.cancel_scope.cancel()


async def test_a_server_under_nohup_survives_its_terminal() -> None:
    server = accepting_server()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server._watch_signals, tasks.cancel_scope, name="signals")
                await anyio.wait_all_tasks_blocked()
                os.kill(os.getpid(), signal.SIGHUP)
                for _ in range(10):
                    await anyio.wait_all_tasks_blocked()
                assert not server.stop.requested.is_set()
                tasks.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_second_sigterm_does_not_end_the_drain() -> None:
    """Nomad sends it if the secrets of a task change while the task stops."""
    server = accepting_server()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._watch_signals, tasks.cancel_scope, name="signals")
            await anyio.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
            await server.stop.requested.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(10):
                await anyio.wait_all_tasks_blocked()
            assert not server.stop.drain.cancel_called
            os.kill(os.getpid(), signal.SIGINT)
            with server.stop.drain:
                await anyio.sleep_forever()
            tasks.cancel_scope.cancel()
