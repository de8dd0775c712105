"""Forward what a program reports over its socket (reports/channel.py), up to a limit. The server decodes it.

Part of the supervisor (see bootstrap.py)."""

import os

from pyexec.guest.interpreter import SECRET_BYTES
from pyexec.guest.wire import CHUNK, REPORT, send_data

MESSAGES_AT_ONCE = 32
"""Messages that one poll forwards, in as few frames as possible."""


class ReportForwarder:
    """Forwards the messages that begin with the program's secret."""

    def __init__(self, streams):
        self.secret = streams.secret
        self.bytes_left = streams.report_bytes
        self.cut = False
        """True if something was dropped."""

    def forward(self, fd, message):
        """Forward this message and some that follow. Drop what exceeds the limit."""
        reports = bytearray()
        messages_left = MESSAGES_AT_ONCE
        while message:
            if message.startswith(self.secret):
                reports += message[SECRET_BYTES:]
            messages_left -= 1
            try:
                message = os.read(fd, CHUNK) if messages_left else b""
            except (BlockingIOError, ConnectionResetError):
                break
        self.cut = self.cut or len(reports) > self.bytes_left
        del reports[self.bytes_left :]
        self.bytes_left -= len(reports)
        send_data(REPORT, reports)
