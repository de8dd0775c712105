"""Test what a session's sandbox sends again when its connection breaks, with the guest's reader of lines."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import pytest

from pyexec.aio import Broadcast
from pyexec.errors import EngineError
from pyexec.guest.session_frames import SESSION
from pyexec.guest.session_lines import LineReader
from pyexec.guest.wire import HEADER
from pyexec.ports import Engine
from pyexec.sandbox.session_sandbox import SessionSandbox

NONCE = "running"


class Guest:
    """A supervisor with a running cell. `received` are the commands that arrive, and `obeyed` those that count."""

    def __init__(self) -> None:
        self.lines = LineReader(0)
        self.received: list[str] = []
        self.obeyed: list[str] = []
        self.changed = Broadcast()

    def answer(self, data: bytes) -> bytes:
        self.received += re.findall("(KILL|INTERRUPT|RESTART) ", data.decode())
        answer = b""
        for command, payload, _ in self.lines.feed(data):
            if command == "SYNC":
                document = {"event": "synced", "token": json.loads(payload)["token"], "ended": False}
                text = json.dumps({**document, "generation": self.lines.generation, "cell": NONCE}).encode()
                answer += HEADER.pack(SESSION, len(text)) + text + b"\n"
            else:
                self.obeyed.append(command)
        self.changed.notify_all()
        return answer

    async def until_received(self, *commands: str) -> None:
        with anyio.fail_after(5):
            while self.received != list(commands):
                await self.changed.wait()


class Connection:
    """A connection to the guest. With `loses`, what is written does not arrive; with `fails`, writing fails, too."""

    id, diagnostics = "0123456789abcdef", ""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.loses = self.fails = self.is_broken = False
        self.unread = b""
        self.changed = Broadcast()

    async def write(self, data: bytes) -> None:
        if self.fails:
            raise EngineError("the connection is broken")
        if not self.loses:
            self.unread += self.guest.answer(data)
            self.changed.notify_all()

    async def read(self) -> bytes:
        while not self.unread:
            if self.is_broken:
                raise EngineError("the connection is broken")
            await self.changed.wait()
        data, self.unread = self.unread, b""
        return data

    async def detach(self) -> None:
        self.is_broken = True
        self.changed.notify_all()


class OneContainer:
    """An engine with one container."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.connections: list[Connection] = []

    async def attach(self, _: str) -> Connection:
        self.connections.append(Connection(self.guest))
        return self.connections[-1]


COMMANDS: dict[str, Callable[[SessionSandbox], Awaitable[Any]]] = {
    "KILL": lambda sandbox: sandbox.kill_cell(NONCE),
    "INTERRUPT": lambda sandbox: sandbox.interrupt(),
    "RESTART": lambda sandbox: sandbox.restart(),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("failure", ["loses", "fails"])
async def test_a_command_that_a_broken_connection_loses_is_sent_again(command: str, failure: str) -> None:
    engine = OneContainer()
    sandbox = SessionSandbox.adopt(cast(Engine, engine), Connection.id, 7)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.serve)
        await sandbox.ready.wait()
        setattr(engine.connections[-1], failure, True)
        await COMMANDS[command](sandbox)
        assert engine.guest.received == []
        await engine.connections[-1].detach()
        await engine.guest.until_received(command)
        await sandbox.acknowledge(NONCE)
        tasks.cancel_scope.cancel()
    assert engine.guest.obeyed == [command, "ACK"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_has_arrived_is_obeyed_once(command: str) -> None:
    engine = OneContainer()
    sandbox = SessionSandbox.adopt(cast(Engine, engine), Connection.id, 7)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.serve)
        await sandbox.ready.wait()
        await COMMANDS[command](sandbox)
        await engine.connections[-1].detach()
        await engine.guest.until_received(command, command)
        assert engine.guest.obeyed == [command]
        await COMMANDS[command](sandbox)
        await sandbox.acknowledge(NONCE)
        tasks.cancel_scope.cancel()
    assert engine.guest.obeyed == [command, command, "ACK"]
