"""Unpack the archive of a run while it arrives.

The server has checked the names and the links, and that the contents fit (pyexec/domain/archive.py). It leaves modes,
owners and times to this module, which accepts every value. What `tarfile` still refuses becomes a `BadArchive`.

Part of the supervisor (see bootstrap.py)."""

import errno
import os
import tarfile
import time

from pyexec.guest.wire import ARCHIVE, CHUNK, InputEnded, read_header

FIRST_TIME = 315532800
"""1980-01-01, the earliest time in the zip format. Programs write it, or 0, if they do not know the time."""
LAST_TIME = 2**32 - 1
ERRORS = (
    tarfile.TarError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""All that `tarfile` raises for malformed headers."""


class BadArchive(Exception):
    """The archive cannot be unpacked. `disk_full` says that its contents do not fit."""

    def __init__(self, message, disk_full):
        super().__init__(message)
        self.disk_full = disk_full


class ArchiveReader:
    """A file object with the payloads of the ARCHIVE frames."""

    def __init__(self, frames):
        self.frames = frames
        self.left = 0
        self.ended = False

    def read(self, size):
        while not self.left and not self.ended:
            kind, self.left = read_header(self.frames)
            if kind != ARCHIVE:
                raise ValueError("expected the archive, not %r" % kind)
            self.ended = not self.left
        data = self.frames.read(min(size, self.left))
        self.left -= len(data)
        if not data and not self.ended:
            raise InputEnded
        return data


def unpack(frames, folder):
    """Unpack the archive into `folder` while it arrives. Raises `BadArchive`."""
    reader = ArchiveReader(frames)
    try:
        with tarfile.open(
            fileobj=reader, mode="r|", bufsize=CHUNK, copybufsize=16 * CHUNK, encoding="utf-8"
        ) as tar:
            tar.extraction_filter = lambda member, path: member
            tar.extractall(folder, members=prepared(tar, folder), numeric_owner=True)
        while reader.read(CHUNK):
            pass
    except ERRORS as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise BadArchive(str(error) or type(error).__name__, full) from error


def prepared(tar, folder):
    """Yield the members with attributes that the system accepts. Before each, remove the file that it replaces."""
    now = time.time()
    for member in tar:
        member.uid, member.gid = os.getuid(), os.getgid()
        member.mode = member.mode & 0o7777 | (0o700 if member.isdir() else 0o600)
        # NaN is not greater than anything, so it counts as not given.
        member.mtime = min(member.mtime, LAST_TIME) if member.mtime > FIRST_TIME else now
        if not member.isdir():
            # As `tar` does. Writing into the existing file would change its hard links, too.
            remove_file(os.path.join(folder, member.name.rstrip("/")))
        yield member


def remove_file(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
