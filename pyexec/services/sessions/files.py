"""Files in the /work of an open session: write, read, list and delete them while cells run."""

import glob
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from attrs import frozen

from pyexec.domain.output_files import (
    UNSAFE,
    FileCheck,
    FileLimits,
    OutputFile,
    SkipReason,
    normalize_pattern,
)
from pyexec.errors import (
    EngineError,
    InvalidRequest,
    SandboxBroken,
    SessionFileError,
    TooLarge,
    Unavailable,
    UnknownFile,
    quote,
)
from pyexec.guest.collector import TRUNCATING_REASONS
from pyexec.sandbox.protocol import FileChunk, FileHeader, FilesCollected, FileSkipped
from pyexec.sandbox.session_receivers import FileFrame
from pyexec.services.clock import now
from pyexec.services.downloads import TAR_END, Download
from pyexec.services.sessions.owned_session import OwnedSession

SKIPPED_NAMED_MAX = 5
"""How many files an error names."""
NOT_A_FILE = "not a file in the /work of this session"
ERROR_TEXTS = {
    "is_directory": " is a directory",
    "not_a_directory": " lies below a file or a link",
}


@frozen(kw_only=True)
class FileListing:
    """The files that match a pattern. `truncated` is true if there are more."""

    files: tuple[OutputFile, ...]
    truncated: bool


@frozen
class SessionFiles:
    """Transfers files. Methods raise `Unavailable` if the session ends meanwhile, and `InvalidRequest` for a path that
    is not below /work."""

    limits: FileLimits

    async def write(self, session: OwnedSession, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Create or replace a file, and its directories. Raises `TooLarge` if the disk of the session is full."""
        if UNSAFE.search(path):  # `read` and `list` would not return it
            raise InvalidRequest(f"{quote(path)} contains a control character or a line end", field="path")
        with session.use.during(), _caller_errors(path):
            await session.sandbox.write_file(path, chunks)

    async def delete(self, session: OwnedSession, path: str) -> None:
        """Delete a file. Raises `UnknownFile`."""
        with session.use.during(), _caller_errors(path):
            await session.sandbox.delete_file(path)

    async def read(self, session: OwnedSession, path: str) -> Download:
        """Return one file, with the size that it has when it is opened. If it shrinks meanwhile, the transfer breaks.

        Raises `UnknownFile` if there is no such file, also for a directory and for a link out of /work."""
        normal = normalize_pattern(path, "path", "path")
        escaped = glob.escape(path)
        normalize_pattern(escaped, "path", "path")  # raises if it is too long
        frames = self._frames(session, escaped)
        header = await anext(frames, None)
        if not isinstance(header, FileHeader) or header.path != normal:
            await frames.aclose()
            if isinstance(header, FileSkipped) and header.reason in TRUNCATING_REASONS:
                raise InvalidRequest(f"{quote(path)} cannot be returned ({header.reason})", field="path")
            raise UnknownFile(f"{quote(path)} is {NOT_A_FILE}")
        return Download(size=header.size, chunks=_contents(frames))

    async def list(self, session: OwnedSession, pattern: str) -> FileListing:
        """Return the files that match a pattern, such as `*.csv` or `out/`."""
        files: list[OutputFile] = []
        truncated = False
        async with aclosing(self._frames(session, pattern, contents=False)) as frames:
            async for frame in frames:
                if isinstance(frame, FileHeader):
                    files.append(OutputFile(path=frame.path, size=frame.size))
                elif isinstance(frame, FilesCollected):
                    truncated = frame.truncated
        return FileListing(files=tuple(files), truncated=truncated)

    async def archive(self, session: OwnedSession, pattern: str) -> AsyncIterator[bytes]:
        """Yield the files that match a pattern as a tar. Raises `InvalidRequest` if one cannot be returned."""
        await self._check_all_readable(session, pattern)
        padding = 0
        async with aclosing(self._frames(session, pattern)) as frames:
            async for frame in frames:
                if isinstance(frame, FileHeader):
                    yield bytes(padding) + _tar_header(frame)
                    padding = -frame.size % tarfile.BLOCKSIZE
                elif isinstance(frame, FileChunk):
                    yield frame.data
                elif isinstance(frame, FilesCollected) and frame.truncated:
                    raise Unavailable("files changed while they were read; the archive is incomplete")
        yield bytes(padding) + TAR_END

    async def _check_all_readable(self, session: OwnedSession, pattern: str) -> None:
        """Raise `InvalidRequest` if a file cannot be returned: an archive cannot report missing files."""
        skipped: list[str] = []
        bytes_left = self.limits.bytes_max
        async with aclosing(self._frames(session, pattern, contents=False)) as frames:
            async for frame in frames:
                if isinstance(frame, FileSkipped) and frame.reason in TRUNCATING_REASONS:
                    skipped.append(f"{quote(frame.path)} ({frame.reason})")
                elif isinstance(frame, FileHeader) and frame.size > bytes_left:  # a sparse file
                    skipped.append(f"{quote(frame.path)} ({SkipReason.TOO_LARGE})")
                elif isinstance(frame, FileHeader):
                    bytes_left -= frame.size
                elif isinstance(frame, FilesCollected) and (frame.truncated or skipped):
                    reasons = skipped or [each.reason for each in frame.skipped_patterns]
                    named = ", ".join(reasons[:SKIPPED_NAMED_MAX])
                    text = f"not all files can be returned in one archive: {named}; use another glob"
                    raise InvalidRequest(text, field="glob")

    async def _frames(
        self, session: OwnedSession, pattern: str, *, contents: bool = True
    ) -> AsyncGenerator[FileFrame, None]:
        """Yield the frames of the sandbox after a check, because the sandbox is untrusted."""
        send = session.sandbox.read_files if contents else session.sandbox.list_files
        check = FileCheck(self.limits)
        with session.use.during(), _caller_errors(pattern):
            async with aclosing(send((pattern,), self.limits)) as frames:
                async for frame in frames:
                    match frame:
                        case FileHeader():
                            check.begin(frame.path, frame.size if contents else 0)
                        case FileChunk():
                            check.feed(frame.data)
                        case FileSkipped():
                            check.skip(frame.path, frame.reason)
                    yield frame
            if len(check.complete()) < check.announced:
                raise SandboxBroken("a file became shorter while it was being sent")


async def _contents(frames: AsyncGenerator[FileFrame, None]) -> AsyncIterator[bytes]:
    """Yield the bytes of the first file."""
    async with aclosing(frames):
        async for frame in frames:
            if isinstance(frame, FileHeader):
                return
            if isinstance(frame, FileChunk):
                yield frame.data


def _tar_header(file: FileHeader) -> bytes:
    member = tarfile.TarInfo(file.path)
    member.size, member.mtime = file.size, int(now().timestamp())
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


@contextmanager
def _caller_errors(path: str) -> Iterator[None]:
    """Convert errors of the sandbox to errors for the caller."""
    try:
        yield
    except SessionFileError as error:
        if error.code == "disk_full":
            raise TooLarge(f"{quote(path)} does not fit in disk_mb of the session", field="path") from error
        if error.code == "not_found":
            raise UnknownFile(f"{quote(path)} is {NOT_A_FILE}") from error
        text = ERROR_TEXTS.get(error.code, f": {error}")
        raise InvalidRequest(f"{quote(path)}{text}", field="path") from error
    except (SandboxBroken, EngineError) as error:
        raise Unavailable(f"the transfer of {quote(path)} was cut short: {error}") from error
