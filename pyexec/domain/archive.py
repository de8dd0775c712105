"""The check of an uploaded tar, header by header as the bytes pass: what may be unpacked, and what to run.

Nothing is kept but the names' hashes, so a check of any size takes constant memory. The format is POSIX.1-2001
(`pax`) with GNU's long names and sparse members; single headers are read by the standard library."""

import posixpath
import tarfile
from collections.abc import Iterator

from attrs import define, field, frozen

from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import InvalidRequest, TooLarge, UnsupportedArchive

BLOCK = tarfile.BLOCKSIZE
NAME_BYTES_MAX = 4095
COMPONENT_BYTES_MAX = 255
EXTENDED_HEADER_MAX = 64 * 1024
GNU_SPARSE_EXTENSION = 504

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
_LINKS = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
_FORBIDDEN = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}
_EXTENDED = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_GNU_LONG = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_OF_ONE_MEMBER = {
    b"path",
    b"linkpath",
    b"size",
    b"GNU.sparse.name",
    b"GNU.sparse.realsize",
    b"GNU.sparse.size",
}
_REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE}


@frozen(kw_only=True)
class ArchiveLimits:
    """How much an archive may hold: bytes once unpacked, and members."""

    bytes_max: int
    members_max: int


@define
class _Pending:
    """What extended headers said about the member that follows them."""

    name: bytes | None = None
    linkname: bytes | None = None
    stored_size: int | None = None
    real_size: int | None = None


@define
class Candidates:
    """The files that may turn out to be the entrypoint, in the order of CONTRACT §2."""

    main: str | None = None
    dunder_main: str | None = None
    first_at_root: str | None = None
    first_anywhere: str | None = None

    def see(self, name: str) -> None:
        if not name.endswith(".py"):
            return
        self.first_anywhere = self.first_anywhere or name
        if "/" in name:
            return
        self.first_at_root = self.first_at_root or name
        if name == "main.py":
            self.main = name
        elif name == "__main__.py":
            self.dunder_main = name

    def best(self) -> str | None:
        return self.main or self.dunder_main or self.first_at_root or self.first_anywhere


@define
class ArchiveCheck:
    """Feed it the upload in chunks of any size, each before it is passed on, then `finish` it.

    Both raise `InvalidRequest` (or its kinds `UnsupportedArchive`, `TooLarge`) naming the member at fault."""

    limits: ArchiveLimits
    entrypoint: str | None = None
    """The file the caller named; None lets `finish` detect one."""

    members: int = 0
    unpacked_bytes: int = 0
    _buffer: bytearray = field(factory=bytearray)
    _skip: int = 0
    _ended: bool = False
    _steps: Iterator[int] | None = None
    _need: int = BLOCK
    _files: set[int] = field(factory=set)
    _directories: set[int] = field(factory=set)
    _symlinks: set[str] = field(factory=set)
    _candidates: Candidates = field(factory=Candidates)
    _entry_kind: str | None = None
    _started: bool = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Checks the headers that lie in the next bytes of the upload."""
        view, at = memoryview(chunk), 0
        while at < len(view) and not self._ended:
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
                at += step
                continue
            step = min(self._need - len(self._buffer), len(view) - at)
            self._buffer += view[at : at + step]
            at += step
            if not self._started:
                self._check_magic()
            if len(self._buffer) == self._need:
                self._advance()

    def finish(self) -> str:
        """After the last byte: the entrypoint, as a normal path inside the archive."""
        if not self._ended:
            if not self._started and not self._buffer:
                raise InvalidRequest("the tar part is empty; send an uncompressed tar", field="tar")
            raise InvalidRequest(
                "the archive is cut short: it ends before its end-of-archive blocks", field="tar"
            )
        if self.members == 0:
            raise InvalidRequest("the archive holds no members", field="tar")
        if self.entrypoint is not None:
            return self._named_entrypoint(self.entrypoint)
        found = self._candidates.best()
        if found is None:
            raise InvalidRequest(
                "the archive holds no .py file to run; add main.py or name an entrypoint", field="entrypoint"
            )
        return found

    def _named_entrypoint(self, entrypoint: str) -> str:
        if self._entry_kind == "file":
            return entrypoint
        if self._entry_kind == "directory":
            raise InvalidRequest(f"entrypoint {entrypoint!r} is a directory; name a file", field="entrypoint")
        raise InvalidRequest(f"entrypoint {entrypoint!r} is not in the archive", field="entrypoint")

    def _check_magic(self) -> None:
        for magic, name in _COMPRESSED.items():
            if self._buffer.startswith(magic):
                raise UnsupportedArchive(
                    f"the tar part is {name}-compressed; send an uncompressed tar (tar -cf, not tar -czf)",
                    field="tar",
                )
        if len(self._buffer) >= 8:
            self._started = True

    def _advance(self) -> None:
        """One complete piece is in the buffer: hand it to the reader of headers, which says what it needs next."""
        if self._steps is None:
            self._steps = self._read_headers()
            next(self._steps)
        piece, self._buffer = bytes(self._buffer), bytearray()
        self._piece = piece
        self._need = next(self._steps)

    _piece: bytes = b""

    def _read_headers(self) -> Iterator[int]:
        """The format's grammar as a coroutine: yields how many bytes it needs, finds them in `_piece`."""
        pending = _Pending()
        yield BLOCK
        while True:
            header = self._piece
            if not any(header):
                self._ended = True
                yield BLOCK
                return
            info = self._parse(header)
            if info.type in _EXTENDED or info.type in _GNU_LONG:
                size = self._extended_size(info)
                yield _padded(size)
                self._note_extended(info, self._piece[:size], pending)
                yield BLOCK
                continue
            stored, real = info.size, None
            if info.type == tarfile.GNUTYPE_SPARSE:
                real = _number(header[483:495])
                extended = bool(header[482])
                while extended:
                    yield BLOCK
                    extended = bool(self._piece[GNU_SPARSE_EXTENSION])
            stored = stored if pending.stored_size is None else pending.stored_size
            real = pending.real_size if pending.real_size is not None else (stored if real is None else real)
            self._check_member(header, info, pending, real)
            self._skip = _padded(stored) if info.type in _REGULAR else 0
            pending = _Pending()
            yield BLOCK

    def _parse(self, header: bytes) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            where = "the upload is not a tar archive" if self.members == 0 else "the archive is damaged"
            raise InvalidRequest(f"{where}: after {self.members} members, {error}", field="tar") from error
        if info.size < 0:
            raise InvalidRequest(f"member {_shown(info.name)} has a negative size", field="tar")
        return info

    def _extended_size(self, info: tarfile.TarInfo) -> int:
        if info.size > EXTENDED_HEADER_MAX:
            raise InvalidRequest(
                f"the archive has an extended header of {info.size} bytes; at most {EXTENDED_HEADER_MAX}",
                field="tar",
            )
        return info.size

    def _note_extended(self, info: tarfile.TarInfo, data: bytes, pending: _Pending) -> None:
        if info.type == tarfile.GNUTYPE_LONGNAME:
            pending.name = data.rstrip(b"\0")
        elif info.type == tarfile.GNUTYPE_LONGLINK:
            pending.linkname = data.rstrip(b"\0")
        else:
            for key, value in _pax_records(data):
                if info.type == tarfile.XGLTYPE and key in _OF_ONE_MEMBER:
                    raise InvalidRequest(
                        f"a global extended header gives every member the same {key.decode()}", field="tar"
                    )
                if (key == b"path" and pending.name is None) or key == b"GNU.sparse.name":
                    pending.name = value
                elif key == b"linkpath":
                    pending.linkname = value
                elif key == b"size":
                    pending.stored_size = _decimal(value)
                elif key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
                    pending.real_size = _decimal(value)

    def _check_member(self, header: bytes, info: tarfile.TarInfo, pending: _Pending, size: int) -> None:
        self.members += 1
        if self.members > self.limits.members_max:
            raise TooLarge(f"the archive holds more than {self.limits.members_max} members", field="tar")
        raw = info.name.encode("utf-8", "surrogateescape") if pending.name is None else pending.name
        name = self._checked_name(raw)
        if info.type in _FORBIDDEN:
            raise InvalidRequest(f"member {_shown(name)} is {_FORBIDDEN[info.type]}", field="tar")
        if info.type in _LINKS:
            target = info.linkname.encode("utf-8", "surrogateescape")
            self._check_link(name, info.type, pending.linkname if pending.linkname is not None else target)
        elif info.type != tarfile.DIRTYPE and info.type not in _REGULAR:
            raise InvalidRequest(f"member {_shown(name)} has the unknown type {info.type!r}", field="tar")
        self._note_member(name, info.type, size)

    def _note_member(self, name: str, kind: bytes, size: int) -> None:
        if name == self.entrypoint:
            self._entry_kind = "directory" if kind == tarfile.DIRTYPE else "file"
        elif (
            self.entrypoint is not None
            and self._entry_kind is None
            and name.startswith(self.entrypoint + "/")
        ):
            self._entry_kind = "directory"
        self._note_directories(name, is_directory=kind == tarfile.DIRTYPE)
        if kind == tarfile.DIRTYPE:
            return
        if name == ".":
            raise InvalidRequest("a member that is no directory is named '.'", field="tar")
        if hash(name) in self._directories:
            raise InvalidRequest(f"member {_shown(name)} is a directory, too", field="tar")
        if hash(name) in self._files:
            raise InvalidRequest(f"member {_shown(name)} is in the archive twice", field="tar")
        self._files.add(hash(name))
        if kind in _REGULAR:
            self._candidates.see(name)
            self.unpacked_bytes += size
        if self.unpacked_bytes > self.limits.bytes_max:
            raise TooLarge(
                f"the archive's contents are larger than disk_mb allows ({self.limits.bytes_max // MEBIBYTE} MiB)",
                field="config.disk_mb",
            )

    def _note_directories(self, name: str, *, is_directory: bool) -> None:
        """Where `name` lies must be directories; those above a known one are known."""
        for directory in (name, *_parents(name)) if is_directory else _parents(name):
            if hash(directory) in self._files:
                raise InvalidRequest(
                    f"member {_shown(name)} needs the directory {_shown(directory)}, which is a file",
                    field="tar",
                )
            if hash(directory) in self._directories:
                return
            self._directories.add(hash(directory))

    def _checked_name(self, raw: bytes) -> str:
        """The member's normal name; raises when it cannot be written, or would lie outside of /work."""
        if len(raw) > NAME_BYTES_MAX:
            raise InvalidRequest(
                f"a member's name is {len(raw)} bytes long, at most {NAME_BYTES_MAX}: {_shown(raw[:60])}…",
                field="tar",
            )
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"a member's name is not UTF-8: {_shown(raw)}", field="tar") from error
        parts = name.split("/")
        if not name or "\0" in name:
            raise InvalidRequest(f"a member's name cannot be written: {_shown(name)}", field="tar")
        if name.startswith("/"):
            raise InvalidRequest(
                f"member {_shown(name)} has an absolute name; use a relative one", field="tar"
            )
        if ".." in parts:
            raise InvalidRequest(f"member {_shown(name)} has '..' in its name", field="tar")
        if any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
            raise InvalidRequest(
                f"a part of member {_shown(name[:60])}… is longer than {COMPONENT_BYTES_MAX} bytes",
                field="tar",
            )
        normal = posixpath.normpath(name)
        through = next((parent for parent in _parents(normal) if parent in self._symlinks), None)
        if through is not None:
            raise InvalidRequest(
                f"member {_shown(name)} lies behind the symbolic link {_shown(through)}", field="tar"
            )
        return normal

    def _check_link(self, name: str, kind: bytes, raw: bytes) -> None:
        """A link must stay inside: a symbolic one counts from its directory, a hard one from the root."""
        try:
            target = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"the link {_shown(name)} has a target that is not UTF-8", field="tar"
            ) from error
        base = posixpath.dirname(name) if kind == tarfile.SYMTYPE else ""
        landing = posixpath.normpath(posixpath.join(base, target))
        if not target or "\0" in target or landing.startswith("/") or landing.split("/")[0] == "..":
            raise InvalidRequest(
                f"the {_LINKS[kind]} {_shown(name)} leads out of the archive, to {_shown(target)}",
                field="tar",
            )
        if kind == tarfile.SYMTYPE:
            self._symlinks.add(name)
        elif hash(landing) not in self._files:
            raise InvalidRequest(
                f"the hard link {_shown(name)} names {_shown(target)}, which does not come before it",
                field="tar",
            )


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _shown(name: str | bytes) -> str:
    return repr(name)[:200]


def _number(digits: bytes) -> int:
    """A number field of a header: octal text, or base 256 when the high bit is set."""
    if digits[:1] >= b"\x80":
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    text = digits.split(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError as error:
        raise InvalidRequest("the archive is damaged: a size is not a number", field="tar") from error


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise InvalidRequest("the archive is damaged: an extended header's size is not a number", field="tar")
    return int(value)


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a pax header: `LENGTH KEY=VALUE\\n`, LENGTH counting itself."""
    at = 0
    while at < len(data) and data[at] != 0:
        length, space, _ = data[at : at + 20].partition(b" ")
        record = data[at : at + int(length)] if space and length.isdigit() else b""
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n") or len(record) != int(length):
            raise InvalidRequest("the archive is damaged: an extended header cannot be read", field="tar")
        yield key, value[:-1]
        at += int(length)
