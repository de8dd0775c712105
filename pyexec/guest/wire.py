"""The wire between a sandbox and its host, as both ends know it.

A frame is one byte of kind, four bytes of length (big-endian), the payload. Towards the host a newline follows,
because Docker's log drivers keep whole lines; output is in base64, because every line costs them, and in pieces,
because the driver `local` loses the newline of a line over 16 KiB (seen with 20.10). The host
sends the archive in ARCHIVE frames, an empty one last; then what the program will be in one PLAN frame, and its
standard input in one STDIN frame; then GO. If the input ends before GO, the sandbox ends. After EXIT come the files
that the run is to bring back, if any: the code that finds them comes along with GO, and the code that evaluates a
script's last expression with PLAN.

This file travels into the container as text, as supervisor.py says."""

import binascii
import json
import os
import struct
import sys

ARCHIVE, PLAN, STDIN, GO = b"A", b"P", b"I", b"G"
READY, UNPACKED, REFUSED, STARTED, STDOUT, STDERR, RESULT, EXIT = (
    b"R",
    b"U",
    b"F",
    b"S",
    b"1",
    b"2",
    b"E",
    b"X",
)
HEADER = struct.Struct("!cI")
WORK, TMP = "/work", "/tmp"
GO_SECONDS = 5.0
"""A go-ahead that comes later than this after the standard input is refused: its sender may have been
asleep so long that somebody else has already decided the execution's fate."""
LINGER_SECONDS = 120.0
"""How long an ended program's container stays for a host that has just restarted to read its last words."""
CHUNK = 64 * 1024
PIECE = 12000
"""What of output goes into one frame."""
RESULT_BYTES_MAX = 64 * 1024
"""What of a last expression's repr is kept."""


def read_header(frames):
    """The next frame's kind and length. The end of the input ends the sandbox: nobody is there any more."""
    header = frames.read(HEADER.size)
    if len(header) < HEADER.size:
        sys.exit(0)
    return HEADER.unpack(header)


def read_frame(frames, kind):
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
    for start in range(0, len(data), PIECE):
        send(kind, binascii.b2a_base64(data[start : start + PIECE], newline=False))


def send_json(kind, **document):
    send(kind, json.dumps(document).encode())
