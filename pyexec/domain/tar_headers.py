"""Read the extended headers of a tar: those of POSIX.1-2001 (`pax`), and GNU's long names.

Python's `tarfile` unpacks the archive in the sandbox. So this accepts only what `tarfile` reads in the same way."""

import tarfile
from collections.abc import Iterator

from attrs import define

from pyexec.errors import InvalidRequest, quote

EXTENDED_HEADER_MAX = 64 * 1024
EXTENDED_HEADERS_MAX = 16
"""How many extended headers a member may have. Python's `tarfile` in the sandbox reads each of them recursively."""

EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_PER_MEMBER = (b"path", b"linkpath", b"size", b"GNU.sparse.")


@define
class ExtendedHeaders:
    """The values that extended headers set for the member that follows them."""

    name: bytes | None = None
    target: bytes | None = None
    stored_size: int | None = None
    real_size: int | None = None
    sparse_map: bool | None = None
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
                    decimal(number)
            elif key == b"size" or (key.startswith(b"GNU.sparse.") and key != b"GNU.sparse.name"):
                decimal(value)
            last[key] = value
        if b"path" in last and b"GNU.sparse.name" in last:
            # GNU tar takes the second. `tarfile` takes the last of them.
            raise InvalidRequest(
                "the archive is ambiguous: a sparse member has two names; create the tar without --sparse",
                field="tar",
            )
        values: dict[str, bytes | int] = {}
        if _has_sparse_map(last):
            values["sparse_map"] = True
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
        if self.stored_size is not None and (self.sparse_map or self.real_size is not None):
            raise two_sizes()

    def _set(self, attribute: str, value: bytes | int) -> None:
        """Set a value, once: with two headers, `tarfile` takes the first, and other programs take the second."""
        if getattr(self, attribute) is not None:
            what = attribute.replace("_", " ")
            raise InvalidRequest(
                f"the archive is ambiguous: two extended headers of a member set its {what}", field="tar"
            )
        setattr(self, attribute, value)


def two_sizes() -> InvalidRequest:
    """Return the error for a sparse member whose headers disagree about its size."""
    return InvalidRequest(
        "the archive is ambiguous: a sparse member has two sizes; create the tar without --sparse",
        field="tar",
    )


def _has_sparse_map(records: dict[bytes, bytes]) -> bool:
    """Return True if `tarfile` reads a map after the header. It takes the formats 0.1 and 0.0 first."""
    older = b"GNU.sparse.map" in records or b"GNU.sparse.size" in records
    is_1_0 = records.get(b"GNU.sparse.major") == b"1" and records.get(b"GNU.sparse.minor") == b"0"
    return is_1_0 and not older


def _check_charset(data: bytes) -> None:
    """Raise `InvalidRequest` if `tarfile` cannot read the character set. It searches for it in values, too."""
    for text in data.split(b" hdrcharset=")[1:]:
        if not text.partition(b"\n")[0].isascii():
            raise InvalidRequest("the archive is damaged: a character set is not ASCII", field="tar")


def decimal(value: bytes) -> int:
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
