"""Send the frames of a session, and keep those of the current cell until the server has confirmed its end.

The frames are outside of the program's reach, and do not count as its memory (see session_limits.py). Part of the
supervisor of a session (see bootstrap.py)."""

import json
import os
import threading

from pyexec.guest.wire import HEADER, PIECE, send, send_data

SESSION, TRANSFER = b"V", b"M"
"""A TRANSFER frame is a header with the kind of another frame and the id of a transfer, and the payload of that frame.
File data in it is raw, not base64: Docker keeps no log of a session."""


class Outdated(Exception):
    """The transfer has ended: it was cancelled, or the server has begun a new connection."""


class Transfer:
    """A transfer of files. `has_ended` changes under the lock of the frames: no more of them are sent then."""

    def __init__(self, number):
        self.number = number
        self.has_ended = False


class CellFrames:
    """The output and reports of a cell, in order, in one piece of memory: a program can print single bytes."""

    def __init__(self):
        self.data = bytearray()
        self.last = None
        """Offset of the last record, which is its kind, its length, its bytes."""

    def add(self, kind, piece):
        """Add a piece of at most PIECE bytes. Successive pieces of one kind become one record, as far as it fits."""
        if self.last is not None:
            last_kind, length = HEADER.unpack_from(self.data, self.last)
            if last_kind == kind and length + len(piece) <= PIECE:
                HEADER.pack_into(self.data, self.last, kind, length + len(piece))
                self.data += piece
                return
        self.last = len(self.data)
        self.data += HEADER.pack(kind, len(piece)) + piece

    def __iter__(self):
        at = 0
        while at < len(self.data):
            kind, length = HEADER.unpack_from(self.data, at)
            at += HEADER.size + length
            yield kind, bytes(self.data[at - length : at])


class Frames:
    """The frames to the server. Cells and transfers of files send from different threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.nonce = None
        self.cell = CellFrames()
        """Frames sent for the current or last cell, until the server confirms its end."""
        self.end = None
        """The outcome of that cell."""

    def begin_cell(self, nonce):
        self.nonce, self.cell, self.end = nonce, CellFrames(), None

    def send_cell(self, kind, data):
        """Send output or reports of the current cell, and keep them."""
        for start in range(0, len(data), PIECE):
            piece = bytes(data[start : start + PIECE])
            self.cell.add(kind, piece)
            with self.lock:
                send_data(kind, piece)

    def end_cell(self, **document):
        self.end = document
        self.send_event("cell_ended", nonce=self.nonce, **document)

    def acknowledge(self, nonce):
        """Drop the frames of a cell that has ended."""
        if nonce == self.nonce and self.end is not None:
            self.begin_cell(None)

    def synchronize(self, generation, token):
        """Answer SYNC, then send the cell's frames again."""
        self.send_event(
            "synced", token=token, generation=generation, cell=self.nonce, ended=self.end is not None
        )
        for kind, piece in self.cell:
            with self.lock:
                send_data(kind, piece)
        if self.end is not None:
            self.send_event("cell_ended", nonce=self.nonce, **self.end)

    def send_event(self, event, **document):
        payload = json.dumps({"event": event, **document}).encode()
        with self.lock:
            send(SESSION, payload)

    def cancel(self, transfer):
        """Stop sending frames of a transfer."""
        with self.lock:
            transfer.has_ended = True

    def send_transfer(self, transfer, kind, payload):
        """Send a frame of a transfer. Raise `Outdated` if the transfer has ended."""
        head = HEADER.pack(TRANSFER, HEADER.size + len(payload)) + HEADER.pack(kind, transfer.number)
        with self.lock:
            if transfer.has_ended:
                raise Outdated
            write_all([head, payload, b"\n"])

    def end_transfer(self, transfer, error, message):
        """Send how a transfer has ended, and stop sending its frames."""
        document = {"event": "transfer_ended", "id": transfer.number, "error": error, "message": message}
        with self.lock:
            if not transfer.has_ended:
                transfer.has_ended = True
                send(SESSION, json.dumps(document).encode())


def write_all(pieces):
    """Write pieces to standard output, without joining them first: they can be large."""
    written = os.writev(1, pieces)
    if written < sum(map(len, pieces)):  # a signal has interrupted it
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(1, rest) :]
