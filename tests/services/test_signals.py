"""Test what the signals of a shutdown do."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def watching_signals() -> AsyncIterator[Server]:
    """Yield a server that accepts work and handles signals."""
    server = accepting_server()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._watch_signals, tasks.cancel_scope, name="signals")
            await anyio.wait_all_tasks_blocked()
            yield server
            tasks.cancel_scope.cancel()


async def settle() -> None:
    """Let a signal that has been sent be handled."""
    for _ in range(10):
        await anyio.wait_all_tasks_blocked()


async def test_a_closed_terminal_begins_the_drain() -> None:
    async with watching_signals() as server:
        os.kill(os.getpid(), signal.SIGHUP)
        await server.stop.requested.wait()


async def test_a_server_under_nohup_survives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with watching_signals() as server:
            os.kill(os.getpid(), signal.SIGHUP)
            await settle()
            assert not server.stop.requested.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_second_sigterm_does_not_end_the_drain() -> None:
    """Nomad sends it if the secrets of a task change while the task stops."""
    async with watching_signals() as server:
        os.kill(os.getpid(), signal.SIGTERM)
        await server.stop.requested.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await settle()
        assert not server.stop.drain.cancel_called
        os.kill(os.getpid(), signal.SIGINT)
        with server.stop.drain:
            await anyio.sleep_forever()
