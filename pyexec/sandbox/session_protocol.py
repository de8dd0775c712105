"""The server's side of the protocol with the supervisor of an interpreter session (see guest/session_lines.py).

The server sends lines; the supervisor answers with the frames of programs, and with SESSION frames."""

import binascii
import json

from attrs import asdict, frozen

from pyexec.domain.events import Usage
from pyexec.guest import wire
from pyexec.guest.session_lines import DATA_BYTES_MAX, MARK

DATA_BYTES = DATA_BYTES_MAX * 3 // 4
"""Bytes of a file after one line. They fit in base64, too."""
CODE_BYTES = 32 * 1024
"""Bytes of a cell's code in one line. The supervisor passes each of them on in one message."""


@frozen(kw_only=True)
class SessionPlan:
    """Describes a session: variables for its interpreter as NAME=VALUE, and the limits that hold between cells, too."""

    env: tuple[str, ...]
    memory_bytes: int
    disk_bytes: int


@frozen(kw_only=True)
class CellStart:
    """A cell to run, with its limits in seconds and bytes.

    `nonce` is that of the cell's `running` event. With `resume`, the supervisor has the cell already: the frames that
    it sends again after SYNC are read. `cpu_seconds` limits the processor time; None is no limit."""

    nonce: str
    code: str
    timeout: float
    output_bytes: int
    display_bytes: int
    cpu_seconds: float | None = None
    resume: bool = False


@frozen(kw_only=True)
class Synced:
    """The supervisor has accepted a generation. It sends the frames of the current or last cell again, if it has one.

    `ended` is True if that cell has ended. `token` is that of the request."""

    token: str
    generation: int
    cell_nonce: str | None
    ended: bool


@frozen(kw_only=True)
class CellEnded:
    """A cell has ended.

    `reason` is `exit`, `timeout`, `killed`, `cpu_limit`, `out_of_memory`, `disk_limit`, `output_limit` or
    `process_limit`. The exit code is 0, that of `SystemExit`, or 1 after another exception. If the interpreter itself
    ended, the exit code is that of its process, and `interpreter_restarted` is True."""

    nonce: str
    reason: str
    exit_code: int
    signalled: bool
    usage: Usage
    interpreter_restarted: bool
    result_truncated: bool
    process_limit: int | None = None


@frozen
class Restarted:
    """The interpreter was restarted between two cells: `requested`, `exit`, `out_of_memory` or `disk_limit`."""

    reason: str


@frozen(kw_only=True)
class TransferEnded:
    """A transfer of files has ended. `error` is a code, or None; `message` explains it."""

    id: int
    error: str | None
    message: str


@frozen
class LineRefused:
    """The supervisor has rejected a line."""

    message: str


SessionFrame = Synced | CellEnded | Restarted | TransferEnded | LineRefused


def session_plan_frame(plan: SessionPlan, generation: int, token: str) -> bytes:
    """Encode the plan. It is the last frame; lines follow."""
    payload = json.dumps({**asdict(plan), "generation": generation, "token": token}).encode()
    return wire.HEADER.pack(wire.PLAN, len(payload)) + payload


def line(command: str, generation: int, payload: bytes, data: bytes = b"") -> bytes:
    """Encode a line, and the bytes that follow it."""
    head = b"%s %d %08x " % (command.encode(), generation, binascii.crc32(payload))
    return b"".join((MARK, head, payload, b"\n", data, b"\n" if data else b""))


def json_line(command: str, generation: int, **document: object) -> bytes:
    """Encode a line with a JSON document."""
    return line(command, generation, json.dumps(document).encode())


def file_data(transfer: int, at: int, data: bytes) -> tuple[bytes, bytes]:
    """Return the payload of a DATA line, and the bytes that follow it. `at` is their offset. No bytes end the file.

    The bytes of the file are sent raw. The supervisor must never mistake them for a line, so bytes that contain the
    beginning of a line are sent as base64."""
    if is_base64 := MARK in data:
        data = binascii.b2a_base64(data, newline=False)
    header = {
        "id": transfer,
        "at": at,
        "bytes": len(data),
        "crc": binascii.crc32(data),
        "base64": is_base64,
    }
    return json.dumps(header).encode(), data


def cell_lines(generation: int, cell: CellStart) -> bytes:
    """Encode a cell to run: the pieces of its code, then the command."""
    code = cell.code.encode("utf-8", "surrogatepass")
    pieces = [code[start : start + CODE_BYTES] for start in range(0, len(code), CODE_BYTES)]
    return b"".join(
        [
            *(line("CODE", generation, binascii.b2a_base64(piece, newline=False)) for piece in pieces),
            json_line(
                "CELL",
                generation,
                nonce=cell.nonce,
                code_bytes=len(code),
                timeout=cell.timeout,
                output_bytes=cell.output_bytes,
                display_bytes=cell.display_bytes,
                cpu_seconds=cell.cpu_seconds,
            ),
        ]
    )
