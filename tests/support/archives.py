"""Tar archives for tests: valid ones, and every kind of invalid one, built header by header."""

import io
import tarfile

END = bytes(2 * tarfile.BLOCKSIZE)
"""The two empty blocks that end an archive."""


def tar_of(files: dict[str, str | bytes]) -> bytes:
    """Return an archive of regular files."""
    return b"".join(member(name, content) for name, content in files.items()) + END


def script(source: str) -> bytes:
    """Return an archive with `source` as main.py."""
    return tar_of({"main.py": source})


def member(
    name: str,
    content: str | bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
    size: int | None = None,
    mode: int | None = None,
    style: int = tarfile.PAX_FORMAT,
) -> bytes:
    """Return one member: headers and padded content. `size` can be wrong; names can contain surrogate escapes."""
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data) if size is None else size
    info.mode = mode if mode is not None else 0o755 if kind == tarfile.DIRTYPE else 0o644
    padding = bytes(-len(data) % tarfile.BLOCKSIZE)
    return info.tobuf(style, "utf-8", "surrogateescape") + data + padding


def many_members(count: int) -> bytes:
    """Return empty members with different names; much faster than calls of `member`."""
    header = bytearray(member("0000000", style=tarfile.USTAR_FORMAT))
    header[:7], header[148:156] = bytes(7), b" " * 8
    total, (before, after) = sum(header), (bytes(header[7:148]), bytes(header[156:]))
    names = [b"%07d" % number for number in range(count)]
    return b"".join(b"%b%b%06o\0 %b" % (name, before, total + sum(name), after) for name in names)


def pax(records: dict[bytes, bytes], *, everywhere: bool = False) -> bytes:
    """Return an extended header with these records, for the next member; with `everywhere`, for all that follow."""
    data = b"".join(_record(key, value) for key, value in records.items())
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XGLTYPE if everywhere else tarfile.XHDTYPE, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def sparse(name: str, real_size: int) -> bytes:
    """Return a member in GNU's old sparse format that stores nothing and unpacks to `real_size` bytes."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % real_size if real_size < 8**11 else b"\x80" + real_size.to_bytes(11, "big")
    return with_checksum(header)


def with_checksum(header: bytearray) -> bytes:
    """Return the header with a correct checksum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def compressed(how: str) -> bytes:
    """Return a valid archive, compressed with gzip, bzip2 or xz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{how}") as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("main.py")
        tar.addfile(info, io.BytesIO())
    return buffer.getvalue()


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest
