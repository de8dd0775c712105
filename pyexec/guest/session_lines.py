"""Read the lines that the server sends to a session, and drop those that do not count.

A line is MARK, a command, the generation of the server that sends it, the CRC-32 of the payload in hex, and the
payload: JSON, or base64 after CODE. After a DATA line, bytes of a file follow as they are, and a newline.

A replica can die in the middle of a line or of such bytes, and the next one writes to the same standard input. It
begins with as many spaces as there can be such bytes, and a newline. They complete what the dead replica has begun,
whose checksum is then wrong. Bytes of a file that arrive later are no line, because they never contain MARK.

The generation is the fence: lines of a lower one than the supervisor has seen are dropped. Part of the supervisor of a
session (see bootstrap.py)."""

import binascii
import json
import re

MARK = b"\x02pyexec "
LINE_BYTES_MAX = 1024 * 1024
"""Longer lines are dropped. The server sends none: it splits files and the code of cells."""
NUMBERED = (b"INTERRUPT", b"KILL", b"RESTART")
"""The server sends the last line of each of these again over a new connection, because the old one may have lost it."""
DATA_BYTES_MAX = 256 * 1024
"""Maximum number of bytes after a DATA line."""
LINE = re.compile(re.escape(MARK) + rb"([A-Z]{1,16}) ([0-9]{1,15}) ([0-9a-f]{8}) (.*)", re.DOTALL)


class LineReader:
    """Splits the standard input into lines, and the bytes that follow DATA lines."""

    def __init__(self, generation):
        self.generation = generation
        self.parts = []
        self.size = 0
        self.data_line = None
        """The payload of a DATA line whose bytes arrive, and True if it counts."""
        self.data_left = 0
        self.numbers = {}
        """The number of the last line of each of the NUMBERED commands, in this generation."""

    def feed(self, received):
        """Add bytes. Yield each complete line that counts: its command, its payload, and the bytes that follow it."""
        at = 0
        while at < len(received):
            if self.data_left:
                piece = received[at : at + self.data_left]
                at += len(piece)
                found = self.add_data(piece)
            else:
                end = received.find(b"\n", at)
                self.add(received[at : None if end < 0 else end])
                if end < 0:
                    return
                at = end + 1
                found = self.end_line()
            if found is not None:
                yield found

    def add(self, piece):
        """Add to the line; drop what is too long."""
        self.size += len(piece)
        if piece and self.size <= LINE_BYTES_MAX:
            self.parts.append(piece)

    def take(self):
        """Return what has been added."""
        taken = b"".join(self.parts) if self.size <= LINE_BYTES_MAX else b""
        self.parts, self.size = [], 0
        return taken

    def add_data(self, piece):
        """Add to the bytes after a DATA line. Return the line when they are complete, and their checksum is right."""
        self.add(piece)
        self.data_left -= len(piece)
        if self.data_left:
            return None
        data, (payload, counts) = self.take(), self.data_line
        self.data_line = None
        if not counts or binascii.crc32(data) != json.loads(payload)["crc"]:
            return None
        return "DATA", payload, data

    def end_line(self):
        """Return the line; None if it is broken, or of an earlier generation, or if bytes follow it."""
        match = LINE.fullmatch(self.take())
        if match is None:
            return None
        command, generation, checksum, payload = match.groups()
        if binascii.crc32(payload) != int(checksum, 16):
            return None
        if int(generation) > self.generation:
            self.generation, self.numbers = int(generation), {}
        counts = int(generation) == self.generation and not self.is_repeated(command, payload)
        if command == b"DATA":
            size = json.loads(payload)["bytes"]
            if size > DATA_BYTES_MAX:
                return None
            if size:
                self.data_line, self.data_left = (payload, counts), size
                return None
        return (command.decode(), payload, b"") if counts else None

    def is_repeated(self, command, payload):
        """Return True if a numbered line has arrived before."""
        if command not in NUMBERED:
            return False
        number, last = json.loads(payload)["number"], self.numbers.get(command, 0)
        self.numbers[command] = max(number, last)
        return number <= last
