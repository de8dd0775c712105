"""Write uncompressed tar archives in chunks, in constant memory."""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from .arguments import chunk_of_bytes, text, wrong_type
from .ignore import IgnoreRules

CHUNK_BYTES = 256 * 1024
_END = bytes(2 * tarfile.BLOCKSIZE)
# Modification time of members that are not files on disk. It is fixed, so that equal sources give equal archives:
# an Idempotency-Key needs that. Zero means that no time is known; the server then sets the present time.
_FIXED_TIME = 0

#: The declaration of an encoding in one of the first two lines of a script.
_ENCODING = re.compile(
    r"\ufeff?(?:[ \t\f]*(?:#[^\r\n]*)?(?:\r\n?|\n))??"  # perhaps a first line that is blank or a comment
    r"[ \t\f]*#[^\r\n]*?coding[:=][ \t]*([-\w.]+)",
    re.ASCII,
)
_UTF8 = re.compile(r"utf[-_]?8\b", re.ASCII | re.IGNORECASE)

Content = str | bytes | os.PathLike[str] | BinaryIO


@frozen
class Member:
    """One entry of an archive: its header, and its content as bytes, as a file to read, or None."""

    header: tarfile.TarInfo
    content: bytes | Path | BinaryIO | None = None


def member(name: str, content: Content) -> Member:
    """Make a file entry from text, bytes, a path, or an open seekable file."""
    header = tarfile.TarInfo(text("a file name", name))
    header.mode, header.mtime = 0o644, _FIXED_TIME
    if isinstance(content, str):
        content = _text_bytes(name, content)
    if isinstance(content, bytes):
        header.size = len(content)
        return Member(header, content)
    if isinstance(content, os.PathLike):
        return _from_disk(name, Path(content), os.stat(content))
    if not hasattr(content, "seek"):
        raise wrong_type(f"the content of {name!r}", "text, bytes, a path or an open file", content)
    header.size = content.seek(0, os.SEEK_END)
    return Member(header, content)


def _text_bytes(name: str, content: str) -> bytes:
    """Encode a text as UTF-8. If a script declares another encoding (PEP 263), the declaration becomes UTF-8.

    Python would decode the file with it, and run another text."""
    declared = _ENCODING.match(content) if name.endswith(".py") else None
    if declared is not None and not _UTF8.match(declared[1]):
        content = f"{content[: declared.start(1)]}utf-8{content[declared.end(1) :]}"
    return content.encode()


def directory_members(root: Path) -> Iterator[Member]:
    """Yield the files below `root` that are not ignored, sorted by name; directories come before their contents.

    The scripts at the root come first: the server looks for inline metadata at the beginning of an archive only.
    Symbolic links are kept as links. Sockets, pipes and devices are skipped. File owners are not included. Raise
    ValueError if nothing remains.
    """
    ignore_file = root / ".dockerignore"
    text = ignore_file.read_text("utf-8", "surrogateescape") if ignore_file.is_file() else ""
    rules = IgnoreRules.parse(text)
    members = _below(root, "", rules)
    first = next(members, None)
    if first is None:
        raise ValueError(f"{root}: {_why_empty(root)}")
    yield first
    yield from members


def _why_empty(root: Path) -> str:
    with os.scandir(root) as listing:
        if next(listing, None) is None:
            return "the directory is empty"
    return "every file is ignored: .git, __pycache__, .venv, node_modules and .dockerignore patterns are not sent"


def _below(folder: Path, prefix: str, rules: IgnoreRules) -> Iterator[Member]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    if not prefix:
        entries.sort(key=lambda entry: not entry.name.endswith(".py"))
    for entry in entries:
        name = prefix + entry.name
        ignored = rules.ignores(name)
        if not ignored and (found := _from_entry(name, entry)) is not None:
            yield found
        if entry.is_dir(follow_symlinks=False) and not (ignored and rules.prunes(name)):
            yield from _below(folder / entry.name, name + "/", rules)


def _from_entry(name: str, entry: os.DirEntry[str]) -> Member | None:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        return _from_disk(name, Path(entry.path), status)
    header = tarfile.TarInfo(name)
    header.mode, header.mtime = 0o755, int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        header.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        header.type, header.linkname = tarfile.SYMTYPE, os.readlink(entry.path)
    else:
        return None
    return Member(header)


def _from_disk(name: str, path: Path, status: os.stat_result) -> Member:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")
    header = tarfile.TarInfo(name)
    header.mode = 0o755 if status.st_mode & 0o100 else 0o644
    header.mtime, header.size = int(status.st_mtime), status.st_size
    return Member(header, path)


def write(members: Iterable[Member]) -> Iterator[bytes]:
    """Yield the archive of these members in chunks. Raise OSError if a file is unreadable or becomes shorter."""
    buffer = bytearray()
    for item in members:
        buffer += _header(item)
        for chunk in _contents(item):
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
        buffer += bytes(-item.header.size % tarfile.BLOCKSIZE)
    yield bytes(buffer + _END)


def size(members: Iterable[Member]) -> int:
    """Return the size of the archive in bytes, without reading the contents of the files."""
    length = len(_END)
    for item in members:
        length += len(_header(item)) + item.header.size + -item.header.size % tarfile.BLOCKSIZE
    return length


def _header(item: Member) -> bytes:
    return item.header.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


def _contents(item: Member) -> Iterator[bytes]:
    match item.content:
        case None:
            return
        case bytes() as whole:
            yield whole
        case Path() as path:
            with path.open("rb", buffering=0) as file:
                yield from _exactly(item, file)
        case file:
            file.seek(0)
            yield from _exactly(item, file)


def _exactly(item: Member, file: BinaryIO) -> Iterator[bytes]:
    """Yield exactly as many bytes as the header says, so that a file that grows does not corrupt the archive."""
    left = item.header.size
    while left:
        chunk = file.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise OSError(f"{item.header.name} became shorter while it was being sent")
        left -= len(chunk)
        yield chunk_of_bytes(chunk)


def read(file: BinaryIO) -> Iterator[bytes]:
    """Yield the chunks of an existing archive."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
