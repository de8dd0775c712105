"""Idempotency keys: a request that is sent again names the execution of the first one."""

from pyexec.correlation import correlate_execution
from pyexec.errors import KeyReused, KeyTaken
from pyexec.ports import EventLog
from pyexec.services.uploads import CheckedArchive, Upload, key_hash


async def check_key(log: EventLog, upload: Upload) -> None:
    """Raise `KeyTaken` if the upload's idempotency key already names an execution of its tenant."""
    if upload.key is None:
        return
    if owner := await log.find_by_key(key_hash(upload.key, upload.tenant)):
        raise KeyTaken(*owner)


async def same_execution(archive: CheckedArchive, taken: KeyTaken) -> str:
    """Return the execution that the idempotency key names, if this is the same request. Raises `KeyReused`."""
    await archive.read_to_end()
    key = await archive.key()
    if key is None or key.fingerprint != taken.fingerprint:
        raise KeyReused(
            f"this Idempotency-Key was used before, with another request, for {taken.execution_id}; use a new key"
        )
    correlate_execution(taken.execution_id)
    return taken.execution_id
