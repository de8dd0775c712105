"""Strategies for valid and invalid tar archives, and the expected result of the check."""

import io
import tarfile
from collections.abc import Callable, Iterable

import pytest
from attrs import frozen

from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.tar_parser import BLOCK
from pyexec.errors import InvalidRequest

LIMITS = ArchiveLimits(bytes_max=1024 * 1024, members_max=50)
LARGE_LIMITS = ArchiveLimits(bytes_max=10**9, members_max=65536)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@frozen
class Entry:
    """A member to be put into an archive."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""


def add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.name)
    info.type, info.linkname, info.size = entry.kind, entry.target, len(entry.content)
    archive.addfile(info, io.BytesIO(entry.content))


def tar(entries: Iterable[Entry], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8") as archive:
        for entry in entries:
            add(archive, entry)
    return buffer.getvalue()


def check(
    data: bytes, *, entrypoint: str | None = None, limits: ArchiveLimits = LIMITS, step: int = 0
) -> str:
    checked = ArchiveCheck(limits=limits, entrypoint=entrypoint)
    for at in range(0, len(data), step or max(1, len(data))):
        checked.feed(data[at : at + step] if step else data)
    return checked.finish()


def check_archive(data: bytes) -> None:
    """Check an archive with the limits of a server that accepts large ones."""
    check(data, limits=LARGE_LIMITS)


def refused(data: bytes, *, entrypoint: str | None = None, limits: ArchiveLimits = LIMITS) -> InvalidRequest:
    """Check that an archive is refused with the same error for all chunk sizes; return the error."""
    refusals = []
    for step in (0, 1, 511, 512, 513):
        with pytest.raises(InvalidRequest) as caught:
            check(data, entrypoint=entrypoint, limits=limits, step=step)
        refusals.append((type(caught.value), str(caught.value), caught.value.field))
    assert len(set(refusals)) == 1
    return caught.value


def sign(data: bytearray, block: int = 0) -> None:
    """Correct the checksum of a header."""
    at = block * BLOCK
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])


def header(change: Callable[[bytearray], None], name: str = "main.py") -> bytes:
    """Return an archive of one member with a changed header."""
    data = bytearray(tar([Entry(name, b"x" * 10)], tarfile.GNU_FORMAT))
    change(data)
    sign(data)
    return bytes(data)


def put(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(value)] = value

    return change


def pax(records: dict[bytes, bytes], kind: bytes = tarfile.XHDTYPE, after: bytes = b"") -> bytes:
    """Return an archive that begins with an extended header of these records."""
    body = b"".join(pax_record(key, value) for key, value in records.items())
    info = tarfile.TarInfo("./PaxHeaders/x")
    info.type, info.size = kind, len(body)
    padding = bytes(-len(body) % BLOCK)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + padding + (after or tar([Entry("main.py", b"x")]))


def pax_record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)
