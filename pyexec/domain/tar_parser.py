"""Find the members of a tar while its bytes arrive, without storing them.

The format is POSIX.1-2001 (`pax`) with GNU's long names and sparse members. The standard library parses the single
headers."""

import re
import tarfile
from collections.abc import Iterator
from typing import TypeVar

from attrs import define, field, frozen

from pyexec.domain.tar_headers import EXTENDED, EXTENDED_HEADER_MAX, ExtendedHeaders, decimal, two_sizes
from pyexec.errors import InvalidRequest, TooLarge, UnsupportedArchive, quote

T = TypeVar("T")

BLOCK = tarfile.BLOCKSIZE
SPARSE_PARTS_MAX = 65_536
_PARTS_IN_BLOCK = 21

REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE})

_KIND = 156
_GNU_SPARSE_REAL_SIZE = slice(483, 495)
_GNU_SPARSE_EXTENDED = 482
_GNU_SPARSE_EXTENDED_NEXT = 504

_COMPRESSED = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zip": re.compile(rb"PK\x03\x04"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "bzip2": re.compile(rb"BZh[1-9]1AY&"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "7z": re.compile(rb"7z\xbc\xaf\x27\x1c"),
}
_MAGIC_BYTES = 8


@frozen(kw_only=True)
class Member:
    """A member as the archive describes it, unchecked. `size` is the size of the unpacked file, including holes."""

    name: bytes
    kind: bytes
    target: bytes
    size: int


@define
class TarParser:
    """Parses a tar that arrives in chunks of any size, and yields each member as soon as its header is complete.

    Raises `InvalidRequest` if the bytes are not a tar, and its subclass `UnsupportedArchive` if they are
    compressed."""

    members: int = 0
    ended: bool = False
    """True after the end-of-archive block. The bytes after it are ignored."""

    _buffer: bytearray = field(factory=bytearray, init=False)
    _need: int = field(default=BLOCK, init=False)
    _skip: int = field(default=0, init=False)
    _magic_checked: bool = field(default=False, init=False)
    _headers: Iterator[Member | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._headers = self._read_headers()
        next(self._headers)

    @property
    def empty(self) -> bool:
        """True until the first byte arrives."""
        return not self._magic_checked and not self._buffer

    def feed(self, chunk: bytes | memoryview) -> Iterator[Member]:
        """Yield the members in the next chunk. Parsing advances only while the caller iterates."""
        view, at = memoryview(chunk), 0
        while at < len(view) and not self.ended:
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
                at += step
                continue
            step = min(self._need - len(self._buffer), len(view) - at)
            self._buffer += view[at : at + step]
            at += step
            if not self._magic_checked:
                self._check_magic()
            if len(self._buffer) == self._need and (member := next(self._headers)) is not None:
                yield member

    def _check_magic(self) -> None:
        for name, magic in _COMPRESSED.items():
            if magic.match(self._buffer):
                raise UnsupportedArchive(
                    f"the archive is {name}-compressed; send an uncompressed tar (tar -cf, not tar -czf)",
                    field="tar",
                )
        self._magic_checked = len(self._buffer) >= _MAGIC_BYTES

    def _take(self, next_need: int) -> bytes:
        """Return the buffered bytes, and set how many bytes to buffer next."""
        taken, self._buffer, self._need = bytes(self._buffer), bytearray(), next_need
        return taken

    def _read_headers(self) -> Iterator[Member | None]:
        """Parse the archive as a coroutine. `feed` resumes it each time `_need` bytes have arrived. It yields the
        member whose header is complete then, or None."""
        extended = ExtendedHeaders()
        yield None
        while any(header := self._take(BLOCK)):
            info = self._parse(header)
            if info.type in EXTENDED:
                self._need = _padded(info.size)
                yield None
                extended.add(info.type, _without_padding(self._take(BLOCK), info.size))
                yield None
                continue
            if extended.count:
                _check_kind(info, header[_KIND : _KIND + 1])
            real = None
            if info.type == tarfile.GNUTYPE_SPARSE:
                real = _number(header[_GNU_SPARSE_REAL_SIZE])
                more, parts = header[_GNU_SPARSE_EXTENDED], 0
                while more:
                    yield None
                    more = self._take(BLOCK)[_GNU_SPARSE_EXTENDED_NEXT]
                    parts += _PARTS_IN_BLOCK
                    _check_sparse_parts(parts)
            self.members += 1
            stored = info.size if extended.stored_size is None else extended.stored_size
            content = _padded(stored) if info.type in REGULAR else 0
            self._skip = 0 if extended.sparse_map else content
            yield self._member(info, stored, real, extended)
            if extended.sparse_map:
                _check_sparse_map(self._take(BLOCK))
                self._skip = content - BLOCK
                yield None
            extended = ExtendedHeaders()
        if extended.count:
            raise InvalidRequest("the archive is damaged: no member follows an extended header", field="tar")
        self.ended = True
        yield None

    def _parse(self, header: bytes) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            damaged = f"the archive is damaged after {self.members} members"
            problem = damaged if self.members else "the upload is not a tar archive"
            raise InvalidRequest(f"{problem}: {error}", field="tar") from error
        if info.size < 0:
            raise InvalidRequest(f"member {quote(info.name)} has a negative size", field="tar")
        if info.type in EXTENDED and info.size > EXTENDED_HEADER_MAX:
            raise InvalidRequest(
                f"the archive has an extended header of {info.size} bytes; at most {EXTENDED_HEADER_MAX} are allowed",
                field="tar",
            )
        return info

    def _member(
        self, info: tarfile.TarInfo, stored: int, real: int | None, extended: ExtendedHeaders
    ) -> Member:
        # For any other member, `tarfile` would take the next header for the map.
        if extended.sparse_map and not (info.isreg() and stored and real is None):
            raise InvalidRequest("the archive is damaged: a sparse member has no map", field="tar")
        if real is not None and (extended.stored_size is not None or extended.real_size is not None):
            raise two_sizes()
        sizes = (extended.real_size, real, stored)
        names = (extended.name, info.name.encode("utf-8", "surrogateescape"))
        targets = (extended.target, info.linkname.encode("utf-8", "surrogateescape"))
        return Member(name=_first(*names), kind=info.type, target=_first(*targets), size=_first(*sizes))


def _without_padding(data: bytes, size: int) -> bytes:
    """Return the content of an extended header. `tarfile` reads its last block to the end."""
    if any(data[size:]):
        raise InvalidRequest(
            "the archive is damaged: an extended header is longer than its size", field="tar"
        )
    return data[:size]


def _check_kind(info: tarfile.TarInfo, kind: bytes) -> None:
    """Refuse a member that versions of Python read differently.

    Before POSIX, a directory was a regular file with a slash at the end of its name. If an extended header precedes the
    member, only versions before the fix of CVE-2025-13462 read it so."""
    if info.isdir() and kind == tarfile.AREGTYPE:
        raise InvalidRequest(
            f"member {quote(info.name)} has an extended header, but is a directory in the format before POSIX; "
            "create the tar in one format",
            field="tar",
        )


def _check_sparse_map(block: bytes) -> None:
    """Check the first line of a map: the number of parts. `tarfile` in the sandbox keeps all of them in memory."""
    line, newline, _ = block.partition(b"\n")
    if not newline:
        raise InvalidRequest("the archive is damaged: the map of a sparse member is malformed", field="tar")
    _check_sparse_parts(decimal(line))


def _check_sparse_parts(count: int) -> None:
    if count > SPARSE_PARTS_MAX:
        raise TooLarge(
            f"a sparse member of the archive has more than {SPARSE_PARTS_MAX} parts; create the tar without --sparse",
            field="tar",
        )


def _first(*values: T | None) -> T:
    return next(value for value in values if value is not None)


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _number(digits: bytes) -> int:
    """Read a number field of a header: octal text, or base 256 if the high bit is set."""
    if digits[:1] >= b"\x80":
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    text = digits.split(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", text):
        raise InvalidRequest("the archive is damaged: a size is not a number", field="tar")
    return int(text or b"0", 8)
