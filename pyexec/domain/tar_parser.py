"""Find the members of a tar while its bytes arrive, without storing them.

The format is POSIX.1-2001 (`pax`) with GNU's long names and sparse members. The standard library parses the single
headers."""

import re
import tarfile
from collections.abc import Iterator
from typing import TypeVar

from attrs import define, field, frozen

from pyexec.errors import InvalidRequest, TooLarge, UnsupportedArchive, quote

T = TypeVar("T")

BLOCK = tarfile.BLOCKSIZE
EXTENDED_HEADER_MAX = 64 * 1024
EXTENDED_HEADERS_MAX = 16
"""How many extended headers a member may have. Python's `tarfile` in the sandbox reads each of them recursively."""

SPARSE_PARTS_MAX = 65_536
_PARTS_IN_BLOCK = 21

REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE})

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

_EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_PER_MEMBER = (b"path", b"linkpath", b"size", b"GNU.sparse.")


@frozen(kw_only=True)
class Member:
    """A member as the archive describes it, unchecked. `size` is the size of the unpacked file, including holes."""

    name: bytes
    kind: bytes
    target: bytes
    size: int


@define
class _ExtendedHeaders:
    """The values that extended headers set for the member that follows them."""

    name: bytes | None = None
    target: bytes | None = None
    stored_size: int | None = None
    real_size: int | None = None
    has_sparse_map: bool = False
    """True if the member's data begins with a map of its parts (GNU sparse format 1.0)."""
    count: int = 0

    def add(self, kind: bytes, data: bytes) -> None:
        """Read one extended header."""
        self.count += 1
        if self.count > EXTENDED_HEADERS_MAX:
            raise InvalidRequest(
                f"a member of the archive has more than {EXTENDED_HEADERS_MAX} extended headers", field="tar"
            )
        if kind == tarfile.GNUTYPE_LONGNAME:
            self._set("name", data.rstrip(b"\0"))
        elif kind == tarfile.GNUTYPE_LONGLINK:
            self._set("target", data.rstrip(b"\0"))
        elif kind == tarfile.XGLTYPE:
            _check_charset(data)
            for key, _ in _pax_records(data):
                if key.startswith(_PER_MEMBER):
                    name = quote(key.decode("ascii", "replace"))
                    raise InvalidRequest(
                        f"the archive sets {name} for all members, which is not allowed",
                        field="tar",
                    )
        else:
            _check_charset(data)
            self._add_records(_pax_records(data))

    def _add_records(self, records: Iterator[tuple[bytes, bytes]]) -> None:
        """Read the records of one header. As in `tarfile`, a later value of a key replaces the earlier one in place."""
        last: dict[bytes, bytes] = {}
        for key, value in records:
            if key == b"GNU.sparse.map":
                for number in value.split(b","):
                    _decimal(number)
            elif key == b"size" or (key.startswith(b"GNU.sparse.") and key != b"GNU.sparse.name"):
                _decimal(value)
            last[key] = value
        values: dict[str, bytes | int] = {}
        for key, value in last.items():
            match key:
                case b"path" | b"GNU.sparse.name":
                    values["name"] = value
                case b"linkpath":
                    values["target"] = value
                case b"size":
                    values["stored_size"] = int(value)
                case b"GNU.sparse.realsize" | b"GNU.sparse.size":
                    values["real_size"] = int(value)
        for attribute, parsed in values.items():
            self._set(attribute, parsed)
        self.has_sparse_map |= b"GNU.sparse.major" in last

    def _set(self, attribute: str, value: bytes | int) -> None:
        """Set a value, once: with two headers, `tarfile` takes the first, and other programs take the second."""
        if getattr(self, attribute) is not None:
            what = attribute.replace("_", " ")
            raise InvalidRequest(
                f"the archive is ambiguous: two extended headers of a member set its {what}", field="tar"
            )
        setattr(self, attribute, value)


def _check_charset(data: bytes) -> None:
    """Raise `InvalidRequest` if `tarfile` cannot read the character set. It searches for it in values, too."""
    for text in data.split(b" hdrcharset=")[1:]:
        if not text.partition(b"\n")[0].isascii():
            raise InvalidRequest("the archive is damaged: a character set is not ASCII", field="tar")


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
    _map_skip: int = field(default=0, init=False)
    """The bytes to skip after the first block of a sparse member's map."""
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
                    f"the tar part is {name}-compressed; send an uncompressed tar (tar -cf, not tar -czf)",
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
        extended = _ExtendedHeaders()
        yield None
        while any(header := self._take(BLOCK)):
            info = self._parse(header)
            if info.type in _EXTENDED:
                self._need = _padded(info.size)
                yield None
                extended.add(info.type, self._take(BLOCK)[: info.size])
                yield None
                continue
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
            yield self._member(info, real, extended)
            if extended.has_sparse_map and info.type in REGULAR:
                _check_sparse_map(self._take(BLOCK))
                self._skip = self._map_skip
                yield None
            extended = _ExtendedHeaders()
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
        if info.type in _EXTENDED and info.size > EXTENDED_HEADER_MAX:
            raise InvalidRequest(
                f"the archive has an extended header of {info.size} bytes; at most {EXTENDED_HEADER_MAX} are allowed",
                field="tar",
            )
        return info

    def _member(self, info: tarfile.TarInfo, real: int | None, extended: _ExtendedHeaders) -> Member:
        stored = info.size if extended.stored_size is None else extended.stored_size
        self._skip = _padded(stored) if info.type in REGULAR else 0
        if extended.has_sparse_map and info.type in REGULAR:
            if not stored:
                raise InvalidRequest("the archive is damaged: a sparse member has no map", field="tar")
            self._map_skip, self._skip = self._skip - BLOCK, 0
        sizes = (extended.real_size, real, stored)
        names = (extended.name, info.name.encode("utf-8", "surrogateescape"))
        targets = (extended.target, info.linkname.encode("utf-8", "surrogateescape"))
        return Member(name=_first(*names), kind=info.type, target=_first(*targets), size=_first(*sizes))


def _check_sparse_map(block: bytes) -> None:
    """Check the first line of a map: the number of parts. `tarfile` in the sandbox keeps all of them in memory."""
    line, newline, _ = block.partition(b"\n")
    if not newline:
        raise InvalidRequest("the archive is damaged: the map of a sparse member is malformed", field="tar")
    _check_sparse_parts(_decimal(line))


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


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise InvalidRequest(
            "the archive is damaged: a size in an extended header is not a number", field="tar"
        )
    return int(value)


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of a pax header: `LENGTH KEY=VALUE\\n`. LENGTH counts the whole record."""
    at = 0
    while at < len(data) and data[at] != 0:
        digits, space, _ = data[at : at + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) != length or not key or not equals or not value.endswith(b"\n"):
            raise InvalidRequest("the archive is damaged: an extended header is malformed", field="tar")
        yield key, value[:-1]
        at += length
