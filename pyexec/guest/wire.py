"""The protocol between a sandbox and the server: frames on the supervisor's standard input and output.

A frame is one byte for its kind, four bytes for the length (big-endian), and the payload. The server sends, in order:

1. ARCHIVE frames with the archive; an empty one ends it;
2. one PLAN frame that describes the program, and one STDIN frame with its whole standard input;
3. one START frame, the start signal;
4. a KILL frame if the program must end at once. Then the server sends nothing more, and removes the sandbox.

If the input ends before START, the sandbox ends. After EXIT, the supervisor sends the output files that the run wants.
If the start signal allows another program, READY follows, and the server begins again with 1; or RETIRED, if the
sandbox could not be restored to its initial state.

Frames to the server end with a newline, because Docker's log drivers store complete lines. Output is base64 without
newlines, because each line has a cost. A frame is smaller than 16 KiB, because the log driver `local` loses the newline
of longer lines (seen with Docker 20.10)."""

import binascii
import json
import os
import struct

ARCHIVE, PLAN, STDIN, START, KILL = b"A", b"P", b"I", b"G", b"T"
READY, UNPACKED, REJECTED, STARTED, STDOUT, STDERR, REPORT, EXIT, RETIRED = (
    b"R",
    b"U",
    b"F",
    b"S",
    b"1",
    b"2",
    b"E",
    b"X",
    b"Q",
)
HEADER = struct.Struct("!cI")
WORK, TMP = "/work", "/tmp"
START_DEADLINE_SECONDS = 5.0
"""The supervisor rejects a start signal that arrives later than this after STDIN. A server that was suspended for so
long may have lost the execution to another replica."""
LINGER_SECONDS = 120.0
"""How long the container stays after the program's end, so that a restarted server can still read its last frames."""
LEASE_SECONDS = 120.0
"""The container of a session ends if the server does not renew its lease for this long."""
CHUNK = 64 * 1024
PIECE = 12000
"""Bytes of output in one frame, before base64."""
REPORT_BYTES_EXTRA = 256 * 1024
"""Bytes that a program may report in addition to its displays: the repr of its last expression, and its exception."""


class InputEnded(Exception):
    """The server has closed its connection, or is gone."""


def read_header(frames):
    """Return the kind and the length of the next frame. Raise `InputEnded` if the input has ended."""
    header = frames.read(HEADER.size)
    if len(header) < HEADER.size:
        raise InputEnded
    return HEADER.unpack(header)


def read_frame(frames, kind):
    """Return the payload of the next frame; raise `ValueError` if it is not of this kind."""
    found, length = read_header(frames)
    if found != kind:
        raise ValueError("expected %r, not %r" % (kind, found))
    return frames.read(length)


def read_json(frames, kind):
    return json.loads(read_frame(frames, kind))


def send(kind, payload=b""):
    data = memoryview(HEADER.pack(kind, len(payload)) + payload + b"\n")
    while data:
        data = data[os.write(1, data) :]


def send_data(kind, data):
    """Send bytes as base64, in as many frames as necessary."""
    for start in range(0, len(data), PIECE):
        send(kind, binascii.b2a_base64(data[start : start + PIECE], newline=False))


def send_json(kind, **document):
    send(kind, json.dumps(document).encode())
