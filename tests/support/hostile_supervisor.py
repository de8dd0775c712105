"""The `python3` of a hostile image: it accepts a program as a supervisor does, and then sends false frames.

The word after LIE= in the program selects the frames. The image's variable LIE_FIRST selects false frames before the
program. This file runs alone in a container."""

import itertools
import json
import os
import struct
import sys
import time

HEADER = struct.Struct("!cI")
END = {"reason": "exit", "exit_code": 0, "signalled": False, "cpu_seconds": 0.1, "peak_memory_bytes": 1,
       "result_truncated": False}  # fmt: skip


def frame(kind: bytes, payload: object = b"") -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return HEADER.pack(kind, len(data)) + data + b"\n"


def say(*pieces: bytes, to: int = 1) -> None:
    data = memoryview(b"".join(pieces))
    while data:
        data = data[os.write(to, data) :]


def hear() -> tuple[bytes, bytes]:
    header = sys.stdin.buffer.read(HEADER.size)
    if len(header) < HEADER.size:
        sys.exit(0)
    kind, length = HEADER.unpack(header)
    return kind, sys.stdin.buffer.read(length)


def forever(data: bytes, to: int = 1) -> None:
    while True:
        say(data * max(1, 65536 // len(data)), to=to)


def lie(how: str) -> None:
    start, end = frame(b"S"), frame(b"X", END)
    match how:
        case "nothing":
            time.sleep(3600)
        case "only_started":
            say(start)
            time.sleep(3600)
        case "busy":
            say(start)
            while True:
                pass
        case "no_end":
            say(start)
        case "garbage":
            say(start)
            forever(os.urandom(4096))
        case "long_frame":
            say(start, HEADER.pack(b"1", 2**31))
            forever(b"x")
        case "deep_json":
            say(start, frame(b"X", b"[" * 1_000_000))
        case "large_json":
            say(start)
            forever(frame(b"S", b'{"x": [' + b"[]," * 2_600_000 + b"[]]}"))
        case "endless_starts":
            say(start)
            forever(frame(b"S", b'{"x": [' + b"[]," * 5_000 + b"[]]}"))
        case "no_base64":
            say(start)
            forever(frame(b"1", b"\n" * 60_000))
        case "impossible_end":
            say(start, frame(b"X", {**END, "exit_code": 10**30}))
        case "endless_exit_code":
            say(start, frame(b"X", {**END, "exit_code": float("inf")}))
        case "unknown_reason":
            say(start, frame(b"X", {**END, "reason": "x" * 1_000_000}))
        case "empty_frames":
            say(start)
            forever(frame(b"1"))
        case "endless_output":
            say(start)
            forever(frame(b"1", b"eHh4" * 1000))
        case "bits_of_output":
            say(start)
            forever(frame(b"1", b"eA=="))
        case "bytes_in_turn":
            say(start)
            forever(frame(b"1", b"eA==") + frame(b"2", b"eA=="))
        case "endless_result":
            say(start)
            forever(frame(b"E", b"eHh4"))
        case "endless_errors":
            say(start)
            forever(b"x", to=2)
        case "two_ends":
            say(start, end, frame(b"X", {**END, "exit_code": 9}))
            time.sleep(3600)
        case "infinite_transfer":
            document = {"event": "transfer_ended", "id": float("inf"), "error": None, "message": ""}
            say(start, end)
            time.sleep(0.3)
            say(frame(b"V", document))
            time.sleep(3600)
        case "file_elsewhere":
            say(start, end, frame(b"N", {"path": "../../etc/cron.d/x", "size": 1}), frame(b"D", b"eA=="))
            say(frame(b"C", {"truncated": False}))
        case "endless_file":
            say(start, end, frame(b"N", {"path": "main.py", "size": 3}))
            forever(frame(b"D", b"eHh4"))
        case "endless_files":
            say(start, end)
            for number in itertools.count():
                say(frame(b"N", {"path": str(number), "size": 0}))
        case "false_report":
            say(start, end, frame(b"C", {"truncated": False, "patterns": [[7, "no_match"]]}))
        case "endless_skips":
            say(start, end)
            for number in itertools.count():
                say(frame(b"K", {"path": str(number), "reason": "link_outside"}))


def lie_first() -> None:
    """Send the first frame, which LIE_FIRST selects, before any input."""
    endless = frame(b"X", b'{"reason": "exit", "exit_code": Infinity}')
    match os.environ.get("LIE_FIRST"):
        case "refused":
            say(frame(b"F", {"code": "no", "message": "no"}))
        case "endless":
            say(endless)
        case "ready_and_endless":
            say(frame(b"R", {"python": "3.11"}), endless)
        case _:
            say(frame(b"R", {"python": "3.11"}))


def main() -> None:
    lie_first()
    program = b""
    while True:
        kind, data = hear()
        if kind == b"A":
            program += data
            if not data:
                say(frame(b"U"))
        elif kind == b"G":
            lie(program.split(b"LIE=")[1].split()[0].decode())
            sys.exit(0)


if __name__ == "__main__":
    main()
