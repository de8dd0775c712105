"""Read the lines that the server sends to a session, and drop those that do not count.

A line is a command, the generation of the server that sends it, the CRC-32 of the payload in hex, and the payload:
JSON, or base64 after DATA and CODE. A replica can die in the middle of a line, and the next one writes to the same
standard input. It begins with a newline, so the checksum of the broken line is wrong.

The generation is the fence: lines of a lower one than the supervisor has seen are dropped. Part of the supervisor of a
session (see bootstrap.py)."""

import binascii
import re

LINE_BYTES_MAX = 1024 * 1024
"""Longer lines are dropped. The server sends none: it splits files and the code of cells."""
LINE = re.compile(rb"([A-Z]{1,16}) ([0-9]{1,15}) ([0-9a-f]{8}) (.*)", re.DOTALL)


class LineReader:
    """Splits the standard input into lines."""

    def __init__(self, generation):
        self.generation = generation
        self.parts = []
        self.size = 0

    def feed(self, data):
        """Add bytes. Yield the command and the payload of each complete line that counts."""
        *complete, rest = data.split(b"\n")
        for end in complete:
            line = b"".join([*self.parts, end]) if self.size <= LINE_BYTES_MAX else b""
            self.parts, self.size = [], 0
            found = self.read(line)
            if found is not None:
                yield found
        self.size += len(rest)
        if rest and self.size <= LINE_BYTES_MAX:
            self.parts.append(rest)

    def read(self, line):
        """Return the command and the payload; None if the line is broken, or of an earlier generation."""
        match = LINE.fullmatch(line)
        if match is None:
            return None
        command, generation, checksum, payload = match.groups()
        if binascii.crc32(payload) != int(checksum, 16) or int(generation) < self.generation:
            return None
        self.generation = int(generation)
        return command.decode(), payload
