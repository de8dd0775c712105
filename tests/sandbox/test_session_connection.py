"""Test the connection to the sandbox of a session: an answer to SYNC, or an error that the caller expects."""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from attrs import define, field

from pyexec.errors import ContainerGone, SandboxBroken
from pyexec.guest import wire
from pyexec.guest.session_frames import SESSION
from pyexec.guest.session_lines import LineReader
from pyexec.ports import Engine
from pyexec.sandbox.session_connection import attach

GENERATION = 3
Answers = Callable[[str], Sequence[bytes]]
"""Return the pieces that the container sends after SYNC with this token."""


@define
class FakeContainer:
    """A container that answers SYNC with `answers`, and then ends."""

    answers: Answers
    is_detached: bool = False
    _pieces: list[bytes] = field(factory=list)

    async def write(self, data: bytes) -> None:
        ((_, payload, _),) = LineReader(0).feed(data)
        self._pieces = list(self.answers(json.loads(payload)["token"]))

    async def read(self) -> bytes | None:
        return self._pieces.pop(0) if self._pieces else None

    async def detach(self) -> None:
        self.is_detached = True


@define
class FakeEngine:
    container: FakeContainer

    async def attach(self, _: str) -> FakeContainer:
        return self.container


def answer(token: str, **changes: Any) -> bytes:
    document = {"event": "synced", "token": token, "generation": GENERATION, "cell": None, "ended": False}
    return json.dumps({**document, **changes}).encode()


def frame(payload: bytes, kind: bytes = SESSION, length: int | None = None) -> bytes:
    return wire.HEADER.pack(kind, len(payload) if length is None else length) + payload + b"\n"


async def attached(answers: Answers) -> tuple[object, FakeContainer]:
    container = FakeContainer(answers)
    _, synced = await attach(cast(Engine, FakeEngine(container)), "c" * 64, GENERATION)
    return synced, container


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_the_answer_is_found_after_the_rest_of_earlier_frames(size: int) -> None:
    def answers(token: str) -> Sequence[bytes]:
        data = b"rest of a frame\n" * 100 + frame(answer(token, cell="n1")) + frame(b"eA==", b"1")
        return [data[at : at + size] for at in range(0, len(data), size)]

    synced, container = await attached(answers)
    assert (synced.generation, synced.cell_nonce) == (GENERATION, "n1")  # type: ignore[attr-defined]
    assert not container.is_detached


@pytest.mark.parametrize(
    "answers",
    [
        lambda token: [answer(token)],
        lambda token: [b"xx" + answer(token)],
        lambda token: [frame(answer(token), kind=b"1")],
        lambda token: [frame(answer(token, generation=1e999))],
        lambda token: [frame(answer(token, cell=[[]]))],
        lambda token: [frame(answer(token)[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}")],
        lambda token: [frame(answer(token), length=2**31), *[b"x" * 65536] * 4],
    ],
)
async def test_a_forged_answer_is_a_broken_sandbox(answers: Answers) -> None:
    container = FakeContainer(answers)
    with pytest.raises(SandboxBroken):
        await attach(cast(Engine, FakeEngine(container)), "c" * 64, GENERATION)
    assert container.is_detached


async def test_without_an_answer_the_container_is_gone() -> None:
    with pytest.raises(ContainerGone):
        await attached(lambda _: [b"other frames"])
