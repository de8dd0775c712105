"""Where an ended execution's output lies: in its terminal event while it is small, else in the blob store."""

from collections.abc import AsyncIterator

from pyexec.domain.events import Output
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import OutputLog
from pyexec.errors import TooLarge
from pyexec.ports import BlobStore

INLINE_BYTES_MAX = 64 * 1024


def output_blob(execution_id: str) -> str:
    """The blob's name."""
    return f"{execution_id}/output"


def files_blob(execution_id: str) -> str:
    """The name of the blob of the files that it brought back."""
    return f"{execution_id}/files"


def payload_blob(execution_id: str) -> str:
    """The name of an accepted archive's blob."""
    return f"{execution_id}/payload"


async def store_output(
    blobs: BlobStore, execution_id: str, output_log: OutputLog
) -> tuple[Output, TooLarge | None]:
    """Puts what was printed where it belongs, durably; the answer goes into the terminal event. What the store has no
    room for is left out: then the error says so, and the output is the beginning."""
    left_out, size = None, len(output_log)
    while True:
        encoded = output_log.encode(size)
        if len(encoded) <= INLINE_BYTES_MAX:
            return Output(inline=encoded), left_out
        try:
            await blobs.put(output_blob(execution_id), _chunks(encoded))
        except TooLarge as error:
            left_out, size = error, size // 2
        else:
            return Output(blob=output_blob(execution_id)), left_out


async def load_output(blobs: BlobStore, execution: Execution) -> OutputLog:
    """What an ended execution printed; an empty output log for one that has not ended."""
    output = execution.terminal.output if execution.terminal else Output()
    if output.blob is not None:
        return OutputLog.decode(b"".join([chunk async for chunk in blobs.read(output.blob)]))
    return OutputLog.decode(output.inline or b"")


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1024 * 1024):
        yield data[start : start + 1024 * 1024]
