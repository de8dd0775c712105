"""Test that the frames of a transfer take little memory, whatever an image sends and however slow its reader is."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from pyexec.domain.output_files import SkippedPattern, SkipReason
from pyexec.errors import SandboxBroken
from pyexec.guest.session_files import FILE_COST, WINDOW
from pyexec.sandbox.frame_stream import FRAMES_PER_SECOND
from pyexec.sandbox.protocol import FileChunk, FileHeader, FilesCollected, FileSkipped
from pyexec.sandbox.session_protocol import TransferEnded
from pyexec.sandbox.session_receivers import REFUSALS_MAX, FileFrame, Refusals, TransferReceiver
from pyexec.sandbox.session_transfers import TRANSFERS_MAX

PATTERNS = (SkippedPattern(number=0, reason=SkipReason.NO_MATCH),) * 1000


@contextmanager
def new_receiver() -> Iterator[TransferReceiver]:
    receiver = TransferReceiver(1)
    try:
        yield receiver
    finally:
        receiver.close()


def add_all(frames: Iterable[FileFrame | TransferEnded]) -> None:
    with new_receiver() as receiver:
        for frame in frames:
            receiver.add(frame)


@pytest.mark.parametrize(
    "frame",
    [
        FileHeader("a", 0),
        FileHeader("a" * 1_000_000, 0),
        FileSkipped("a", SkipReason.NOT_A_FILE),
        FileChunk(b"x" * 9000),
        FileChunk(b""),
        FilesCollected(truncated=False, skipped_patterns=PATTERNS),
        TransferEnded(id=1, error=None, message=""),
    ],
    ids=lambda frame: type(frame).__name__,
)
async def test_a_sandbox_that_sends_without_end_is_broken(frame: FileFrame | TransferEnded) -> None:
    with pytest.raises(SandboxBroken):
        add_all([frame] * 100_000)


async def test_a_window_of_announcements_with_the_longest_paths_is_kept() -> None:
    add_all([FileHeader("a" * 1024, 0)] * (WINDOW // FILE_COST + 1))


def test_many_lists_do_not_delay_a_cell() -> None:
    """Its frames wait behind the windows of all lists, and the server limits frames per second."""
    names = TRANSFERS_MAX * WINDOW // FILE_COST
    assert 2 * names / FRAMES_PER_SECOND < 1.0, "a name of 256 bytes counts as two frames"


async def test_what_is_consumed_makes_room() -> None:
    frames = itertools.cycle([FileHeader("a" * 1024, 9), FileChunk(b"x" * 9)])
    with new_receiver() as receiver:
        for frame in itertools.islice(frames, 50_000):
            receiver.add(frame)
            receiver.consumed(receiver.frames.receive_nowait())


def test_a_supervisor_that_refuses_lines_without_end_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for _ in range(REFUSALS_MAX):
        refusals.record("c0ffee", "CELL: the code is incomplete")
    with pytest.raises(SandboxBroken):
        refusals.record("c0ffee", "CELL: the code is incomplete")
    assert len(caplog.records) == REFUSALS_MAX
