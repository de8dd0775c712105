"""A container engine in memory. Its containers speak the supervisor's protocol, and keep count of what was started.

What runs in a container does not depend on who started it: it goes on when that replica crashes."""

import asyncio
import base64
import json
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

import anyio
from attrs import define, field

from pyexec.errors import EngineError
from pyexec.guest import wire
from pyexec.ports import ContainerSpec, EngineIdentity, Image

HEADER = struct.Struct("!cI")
GRACE_SECONDS = 5.0


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload + b"\n"


def document(kind: bytes, **values: object) -> bytes:
    return frame(kind, json.dumps(values).encode())


@define(eq=False)
class Program:
    """One start of a program, and how it ended by itself, if it did."""

    token: str
    started_at: float
    timeout: float
    exit_code: int | None = None
    reason: str | None = None
    ended_at: float | None = None


@define(eq=False)
class Box:
    """A container as the engine has it: its output from the first byte on, and the state of its supervisor."""

    id: str
    labels: Mapping[str, str]
    engine: "MemoryEngine"
    output: bytearray = field(factory=bytearray)
    ended: bool = False
    ran_out_of_memory: bool = False
    token: str = ""
    armed_at: float | None = None
    program: Program | None = None
    reuse: bool = False
    changed: anyio.Event = field(factory=anyio.Event)
    _input: bytearray = field(factory=bytearray)

    @property
    def running(self) -> bool:
        """Return True if its program has started and has not ended."""
        return not self.ended and self.program is not None and self.program.reason is None

    def say(self, data: bytes) -> None:
        if not self.ended:
            self.output += data
            self._announce()

    def end(self) -> None:
        """End the container as SIGKILL does. The engine keeps nothing of it."""
        self.ended = True
        self.engine.boxes.pop(self.id, None)
        if self.program is not None and self.program.ended_at is None:
            self.program.ended_at = anyio.current_time()
        self._announce()

    def _announce(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def hear(self, data: bytes) -> None:
        """Receive data on the supervisor's standard input."""
        self._input += data
        while len(self._input) >= HEADER.size and not self.ended:
            kind, length = HEADER.unpack_from(self._input)
            if len(self._input) < HEADER.size + length:
                return
            payload = bytes(self._input[HEADER.size : HEADER.size + length])
            del self._input[: HEADER.size + length]
            self._obey(kind, payload)

    def hang_up(self) -> None:
        """Close the standard input. A sandbox that waits for a program then ends, after some time if it has run one."""
        if self.program is None:
            self.end()
        elif self.reuse and not self.running:
            self.say(document(wire.REJECTED, code="abandoned", message="the server closed the connection"))
            self.engine.call_later(wire.LINGER_SECONDS, self.end)

    def _obey(self, kind: bytes, payload: bytes) -> None:
        now = anyio.current_time()
        if kind == wire.ARCHIVE and not payload:
            self.say(frame(wire.UNPACKED))
        elif kind == wire.PLAN:
            (self.token,) = json.loads(payload)["env"]
        elif kind == wire.STDIN:
            self.armed_at = now
        elif kind == wire.START:
            assert self.armed_at is not None
            if now - self.armed_at > wire.START_DEADLINE_SECONDS:
                self.say(document(wire.REJECTED, code="late", message="the start signal came too late"))
                self.end()
            else:
                self._start(json.loads(payload), now)

    def _start(self, go: Mapping[str, object], now: float) -> None:
        timeout = go["timeout"]
        assert isinstance(timeout, float | int)
        self.program = Program(self.token.removeprefix("TOKEN="), now, timeout)
        self.engine.started.append(self.program)
        self.reuse = bool(go["reuse"])
        self.say(document(wire.STARTED, nonce=go["nonce"]))
        self.engine.call_later(timeout, partial(self._time_out, self.program))
        self.engine.call_later(timeout + GRACE_SECONDS, partial(self._last_alarm, self.program))
        if self.engine.programs_end_at_once:
            self.exit(0)

    def _time_out(self, program: Program) -> None:
        if self.running and self.program is program:
            self.exit(124, reason="timeout")

    def _last_alarm(self, program: Program) -> None:
        if self.running and self.program is program:
            self.end()

    def print(self, data: bytes) -> None:
        """Let the program print."""
        self.say(frame(wire.STDOUT, base64.b64encode(data)))

    def exit(self, code: int, reason: str = "exit") -> None:
        """Let the program end by itself, or at a limit."""
        assert self.program is not None
        self.program.exit_code, self.program.reason = code, reason
        self.program.ended_at = anyio.current_time()
        self.say(
            document(
                wire.EXIT,
                reason=reason,
                exit_code=code,
                signalled=False,
                cpu_seconds=0.0,
                peak_memory_bytes=0,
                result_truncated=False,
            )
        )
        if not self.reuse:
            self.engine.call_later(wire.LINGER_SECONDS, self.end)
        elif self.engine.cleaning_seconds:
            self.engine.call_later(self.engine.cleaning_seconds, partial(self.say, document(wire.READY)))
        else:
            self.say(document(wire.READY))


class MemoryEngine:
    """The state of an engine in memory, which all replicas on one machine share."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boxes: dict[str, Box] = {}
        self.started: list[Program] = []
        self.away = False
        self.unremoved: set[str] = set()
        self.environments: dict[str, Image] = {}
        self.builds: list[str] = []
        self.pulled: set[str] = set()
        self.start_seconds = 0.0
        self.cleaning_seconds = 0.0
        self.setup_seconds = 0.0
        self.setups: Counter[str] = Counter()
        """How many setups are in progress, by the process that runs them."""
        self.programs_end_at_once = False
        self._numbers = count(1)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, callback)

    def check(self) -> None:
        if self.away:
            raise EngineError(f"{self.name} is away")

    def identify(self) -> EngineIdentity:
        return EngineIdentity(
            id=self.name, version="1", architecture="amd64", cpus=4, memory_mb=8192, unsupported=()
        )

    async def start(self, spec: ContainerSpec) -> Box:
        self.check()
        await anyio.sleep(self.start_seconds)
        self.check()
        box = Box(f"{self.name}-{next(self._numbers)}", dict(spec.labels), self)
        self.boxes[box.id] = box
        box.say(document(wire.READY, python="3.12", memory_bytes=0))
        return box

    async def set_up(self, process: str) -> None:
        """Pull an image, or run a command of a setup, for one process."""
        self.setups[process] += 1
        try:
            await anyio.sleep(self.setup_seconds)
        finally:
            self.setups[process] -= 1

    def come_back(self) -> None:
        """Make the engine answer again."""
        self.away = False
        while self.unremoved:
            self.remove(self.unremoved.pop())

    def remove(self, container_id: str) -> None:
        if (box := self.boxes.pop(container_id, None)) is not None:
            box.end()

    def list_containers(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        self.check()
        return {i: box.labels for i, box in self.boxes.items() if labels.items() <= box.labels.items()}
