"""Connect to the running sandbox of a session, by SYNC. See docs/design/sessions.md."""

import json
import secrets

import anyio

from pyexec.errors import ContainerGone, EngineError, SandboxBroken
from pyexec.guest import wire
from pyexec.ports import Container, Engine
from pyexec.sandbox.decoder import decode_frame
from pyexec.sandbox.frame_stream import FrameStream
from pyexec.sandbox.session_protocol import Synced, json_line

SYNC_SECONDS = 10.0
UNRELATED_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of earlier frames that may arrive before the answer."""
ANSWER_BYTES_MAX = 1024


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
            # The newline ends a line that the last connection has begun.
            await container.write(b"\n" + json_line("SYNC", generation, token=token))
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
    data, total = bytearray(), 0
    while (part := await container.read()) is not None:
        data += part
        total += len(part)
        if total > UNRELATED_BYTES_MAX:
            raise SandboxBroken("the sandbox does not answer, but sends other frames")
        at = data.find(begin)
        if at < 0:
            del data[: -len(begin) - wire.HEADER.size]
            continue
        if at < wire.HEADER.size:
            raise SandboxBroken("the answer to SYNC has no header")
        kind, length = wire.HEADER.unpack_from(data, at - wire.HEADER.size)
        if length > ANSWER_BYTES_MAX:
            raise SandboxBroken(f"the answer to SYNC has {length} bytes; the limit is {ANSWER_BYTES_MAX}")
        if len(data) <= at + length:
            continue
        synced = decode_frame(kind, bytes(data[at : at + length]))
        if not isinstance(synced, Synced):
            raise SandboxBroken(f"the answer to SYNC is {type(synced).__name__}")
        return synced, bytes(data[at + length + 1 :])
    raise ContainerGone("the sandbox ended before it answered")
