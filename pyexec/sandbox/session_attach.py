"""Connect to the running sandbox of a session, by SYNC. See docs/design/sessions.md."""

import json
import secrets

import anyio

from pyexec.errors import ContainerGone, EngineError, SandboxBroken
from pyexec.guest import wire
from pyexec.guest.session_frames import SESSION
from pyexec.guest.session_lines import DATA_BYTES_MAX
from pyexec.ports import Container, Engine
from pyexec.sandbox.frame_stream import FrameStream
from pyexec.sandbox.session_protocol import Synced, json_line, session_frame

SYNC_SECONDS = 10.0
FLUSH = b" " * DATA_BYTES_MAX + b"\n"
"""Ends a line, and the bytes after a line, that the last connection has begun."""
UNRELATED_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of earlier frames that may arrive before the answer."""


def new_token() -> str:
    """Return a token that distinguishes the answer to this request."""
    return secrets.token_hex(8)


async def attach(engine: Engine, container_id: str, generation: int) -> tuple[FrameStream, Synced]:
    """Attach to the container and synchronize with its supervisor.

    Raises `ContainerGone` if the container does not run any more, and `EngineError` if the supervisor does not
    answer."""
    container = await engine.attach(container_id)
    try:
        with anyio.fail_after(SYNC_SECONDS):
            token = new_token()
            await container.write(FLUSH + json_line("SYNC", generation, token=token))
            synced, rest = await _find_answer(container, token)
            return FrameStream(engine, container, rest), synced
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await container.detach()
        if isinstance(error, TimeoutError):
            raise EngineError(
                f"the supervisor of {container_id[:12]} did not answer within {SYNC_SECONDS:g} s"
            ) from error
        raise


async def _find_answer(container: Container, token: str) -> tuple[Synced, bytes]:
    """Return the answer, and what was received after it. The connection may begin in the middle of a frame."""
    begin = json.dumps({"event": "synced", "token": token})[:-1].encode()
    data, total = b"", 0
    while (part := await container.read()) is not None:
        data, total = data + part, total + len(part)
        if total > UNRELATED_BYTES_MAX:
            raise SandboxBroken("the sandbox does not answer, but sends other frames")
        at = data.find(begin)
        if at < 0:
            data = data[-len(begin) - wire.HEADER.size :]
            continue
        kind, length = wire.HEADER.unpack_from(data, at - wire.HEADER.size)
        if len(data) <= at + length:
            continue
        try:
            synced = session_frame(json.loads(data[at : at + length]))
        except (KeyError, TypeError, ValueError) as error:
            raise SandboxBroken("the answer to SYNC is malformed") from error
        if kind != SESSION or not isinstance(synced, Synced):
            raise SandboxBroken("the answer to SYNC is malformed")
        return synced, data[at + length + 1 :]
    raise ContainerGone("the sandbox ended before it answered")
