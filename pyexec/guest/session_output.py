"""Forward what the processes of a session print and report. All functions take an interpreter, the cell that runs (None
between cells), and the frames to the server.

Part of the supervisor of a session (see bootstrap.py)."""

import fcntl
import os
import termios

from pyexec.guest.wire import CHUNK, REPORT


def forward(interpreter, cell, frames, fd, size):
    """Forward available output. Return the number of bytes; 0 at the end, or if there are none."""
    try:
        data = os.read(fd, size)
    except BlockingIOError:
        return 0
    if not data:
        interpreter.close_output(fd)
        return 0
    frames.send_cell(interpreter.streams.outputs[fd], cell.take_output(data))
    return len(data)


def receive(interpreter, cell, frames):
    """Forward reports. Return the number of bytes, and the shell's messages."""
    size, reports, messages = interpreter.receive()
    if not size and interpreter.has_hung_up():
        interpreter.close_output(interpreter.channel)
    if reports and cell is not None:
        frames.send_cell(REPORT, cell.take_reports(reports))
    return size, messages


def drain(interpreter, cell, frames):
    """Forward what is in the pipes now. What comes later belongs to the next cell."""
    for fd in list(interpreter.streams.outputs):
        left = waiting_bytes(fd)
        while left > 0 and fd in interpreter.streams.outputs:
            if fd == interpreter.channel:
                size, _ = receive(interpreter, cell, frames)
            else:
                size = forward(interpreter, cell, frames, fd, min(CHUNK, left))
            if not size:
                break
            left -= size


def waiting_bytes(fd):
    """Return how many bytes can be read now."""
    left = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, left)
    return int.from_bytes(left, "little")
