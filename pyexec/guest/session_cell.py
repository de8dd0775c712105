"""The current cell of a session.

Part of the supervisor of a session (see bootstrap.py)."""

import math
import time

from pyexec.guest.wire import REPORT_BYTES_EXTRA

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
