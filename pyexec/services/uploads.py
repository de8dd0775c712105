"""What a caller sends to be run: the archive is checked as it passes, and hashed when a key stands for it."""

import hashlib
import json
from collections.abc import AsyncIterator

from attrs import frozen

from pyexec.codec import to_json
from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.spec import MEBIBYTE, Metadata, Spec
from pyexec.errors import EngineError, InvalidRequest, SandboxBroken, SandboxRefused, TooLarge, Unavailable
from pyexec.metrics import NOOP_METER, UPLOAD_BYTES, Meter
from pyexec.ports import IdempotencyKey
from pyexec.sandbox.sandbox import Sandbox


@frozen(kw_only=True)
class Upload:
    """One request to run something: what to run, the archive as it streams in, and how the caller means it.

    `identity` is what else must be equal for two requests under one idempotency key to be the same."""

    metadata: Metadata
    archive: AsyncIterator[bytes]
    key: str | None = None
    identity: str = ""
    eval_last_expr: bool = False


class CheckedArchive:
    """The archive of an upload, checked as it passes, and hashed when a key needs its fingerprint."""

    def __init__(self, upload: Upload, spec: Spec, members_max: int, meter: Meter = NOOP_METER) -> None:
        limits = ArchiveLimits(bytes_max=spec.limits.disk_mb * MEBIBYTE, members_max=members_max)
        self._check = ArchiveCheck(limits, spec.entrypoint)
        self._upload = upload
        self._digest = hashlib.sha256() if upload.key is not None else None
        self._meter = meter
        self._ahead: list[bytes] = []
        self._rest = self._checked()

    async def read_ahead(self, bytes_max: int) -> bool:
        """Whether that is the whole archive, which is sound then. What was read is held, and `chunks` gives it first: a
        whole archive any number of times."""
        size = 0
        async for chunk in self._rest:
            self._ahead.append(chunk)
            size += len(chunk)
            if size > bytes_max:
                return False
        self.entrypoint()
        return True

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, each chunk after its check; raises `InvalidRequest` where the archive is at fault."""
        for chunk in self._ahead:
            yield chunk
        async for chunk in self._rest:
            yield chunk

    async def _checked(self) -> AsyncIterator[bytes]:
        async for chunk in self._upload.archive:
            self._meter.count(UPLOAD_BYTES, by=len(chunk))
            self._check.feed(chunk)
            if self._digest is not None:
                self._digest.update(chunk)
            yield chunk

    def entrypoint(self) -> str:
        """After the last chunk: the file to run."""
        return self._check.finish()

    def key(self) -> IdempotencyKey | None:
        """After the last chunk: the caller's key with the fingerprint of the whole request."""
        if self._upload.key is None or self._digest is None:
            return None
        metadata = json.dumps(to_json(self._upload.metadata), sort_keys=True)
        parts = [self._upload.identity, metadata, self._digest.hexdigest()]
        return IdempotencyKey(key_hash=digest(self._upload.key), fingerprint=digest("\n".join(parts)))


async def fill(sandbox: Sandbox, archive: CheckedArchive, spec: Spec) -> None:
    """The archive into the sandbox; what the caller is to blame for is an `InvalidRequest`."""
    try:
        async for chunk in archive.chunks():
            await sandbox.send_archive(chunk)
        archive.entrypoint()
        await sandbox.unpack()
    except SandboxRefused as error:
        if error.code == "disk_full":
            raise TooLarge(
                f"the archive's contents do not fit in disk_mb ({spec.limits.disk_mb} MiB)",
                field="config.disk_mb",
            ) from error
        raise InvalidRequest(f"the archive cannot be unpacked: {error}", field="tar") from error
    except (SandboxBroken, EngineError) as error:
        raise Unavailable(f"the sandbox broke while it was filled: {error}") from error


def digest(text: str) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
