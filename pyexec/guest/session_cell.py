"""The current cell of a session, and what the processes of the session print and report while it runs.

The functions take an interpreter, the cell that runs (None between cells), and the frames to the server. Part of the
supervisor of a session (see bootstrap.py)."""

import fcntl
import math
import os
import select
import termios
import time

from pyexec.guest.wire import CHUNK, REPORT, REPORT_BYTES_EXTRA

INTERRUPT_SECONDS = 2.0
"""The interpreter is killed this long after an interrupt that should have ended the cell."""


class Cell:
    """A cell from its line to its end. `reason` is why it ends; None while it may run on.

    `code` is a list of pieces."""

    def __init__(self, request, code):
        self.nonce = request["nonce"]
        if sum(map(len, code)) != request["code_bytes"]:
            raise ValueError("the code is incomplete")
        self.code = code
        self.timeout = request["timeout"]
        self.display_bytes = request["display_bytes"]
        self.output_left = request["output_bytes"]
        self.reports_left = self.display_bytes + REPORT_BYTES_EXTRA
        self.cpu_seconds = math.inf if request["cpu_seconds"] is None else request["cpu_seconds"]
        self.exceeds_output = self.cut = False
        """True if output, or a report, was dropped."""
        self.reason = None
        self.deadline = math.inf
        self.is_sent = self.has_begun = self.interrupt_waits = False

    def begin(self):
        """Start the clock: the interpreter gets the cell."""
        self.is_sent = True
        self.deadline = time.monotonic() + self.timeout

    def take_output(self, data):
        """Return how much of the output may be sent."""
        self.exceeds_output = self.exceeds_output or len(data) > self.output_left
        data = data[: self.output_left]
        self.output_left -= len(data)
        return data

    def take_reports(self, data):
        self.cut = self.cut or len(data) > self.reports_left
        data = data[: self.reports_left]
        self.reports_left -= len(data)
        return data


def register_streams(interpreter, cell, poller):
    """Add the descriptors of the interpreter to a poller: the channel while it starts, and all while it runs a cell."""
    if interpreter is None or (cell is None and interpreter.is_ready):
        return
    for fd in interpreter.streams.outputs:
        is_channel = fd == interpreter.channel
        if is_channel or cell is not None:
            writes = select.POLLOUT if is_channel and interpreter.outgoing else 0
            poller.register(fd, select.POLLIN | writes)


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
