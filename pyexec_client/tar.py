"""Uncompressed tar archives, written piece by piece in constant memory."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from .ignore import IgnoreRules

CHUNK_BYTES = 256 * 1024
_END = bytes(2 * tarfile.BLOCKSIZE)
# Text has no time of its own. A fixed one makes equal sources equal archives, which an Idempotency-Key needs;
# 1980 because zip files, which programs may make of what they got, know no earlier one.
_FIXED_TIME = 315_532_800

Content = str | bytes | os.PathLike[str] | BinaryIO


@frozen
class Member:
    """One entry of an archive: its header, and its bytes, a file to read them from, or nothing."""

    header: tarfile.TarInfo
    content: bytes | Path | BinaryIO | None = None


def member(name: str, content: Content) -> Member:
    """A file called `name` with this text, these bytes, or what this path or open seekable file holds."""
    header = tarfile.TarInfo(name)
    header.mode, header.mtime = 0o644, _FIXED_TIME
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        header.size = len(content)
        return Member(header, content)
    if isinstance(content, os.PathLike):
        return _from_disk(name, Path(content), os.stat(content))
    header.size = content.seek(0, os.SEEK_END)
    return Member(header, content)


def directory_members(root: Path) -> Iterator[Member]:
    """Everything below `root` that its ignore rules let pass, by name, directories before their contents.

    Symbolic links stay links. Sockets, pipes and devices are left out. Owners are not told. ValueError if that
    leaves nothing at all.
    """
    ignore_file = root / ".dockerignore"
    text = ignore_file.read_text("utf-8", "surrogateescape") if ignore_file.is_file() else ""
    rules = IgnoreRules.parse(text)
    members = _below(root, "", rules)
    first = next(members, None)
    if first is None:
        raise ValueError(f"{root}: {_why_nothing(root)}")
    yield first
    yield from members


def _why_nothing(root: Path) -> str:
    with os.scandir(root) as listing:
        if next(listing, None) is None:
            return "the directory is empty"
    return "everything in it is left out: .git, __pycache__, .venv, node_modules, what .dockerignore names"


def _below(folder: Path, prefix: str, rules: IgnoreRules) -> Iterator[Member]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
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
    """The archive of these members. OSError if a file cannot be read, or became shorter meanwhile."""
    buffer = bytearray()
    for item in members:
        buffer += _header(item)
        for piece in _contents(item):
            buffer += piece
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
        buffer += bytes(-item.header.size % tarfile.BLOCKSIZE)
    yield bytes(buffer + _END)


def size(members: Iterable[Member]) -> int:
    """How long their archive will be. Headers are made, contents are not read."""
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
    """As many bytes as the header promised: a file that grows meanwhile must not break the archive."""
    left = item.header.size
    while left:
        piece = file.read(min(left, CHUNK_BYTES))
        if not piece:
            raise OSError(f"{item.header.name} became shorter while it was being sent")
        left -= len(piece)
        yield piece


def read(file: BinaryIO) -> Iterator[bytes]:
    """The pieces of an archive that somebody else made."""
    while piece := file.read(CHUNK_BYTES):
        yield piece
