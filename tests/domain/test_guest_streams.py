"""Test that no read of the supervisor waits for a program: its streams are non-blocking."""

import os

import pytest

from pyexec.guest.interpreter import Streams
from pyexec.guest.wire import REPORT


@pytest.fixture
def streams() -> Streams:
    streams = Streams()
    streams.open_channel(0, b"")
    streams.ends[REPORT] = streams.channel_end
    return streams


def test_a_stream_whose_bytes_were_stolen_does_not_block_the_supervisor(streams: Streams) -> None:
    for kind, end in streams.ends.items():
        read = next(fd for fd, found in streams.outputs.items() if found == kind)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        os.close(end)
    streams.close()


def test_a_full_input_does_not_block_the_supervisor(streams: Streams) -> None:
    streams.stdin.fill(bytes(10_000_000))
    assert streams.stdin.is_open
    streams.close()
