"""Compare what the server sees in an archive with what the guest unpacks: names, kinds, sizes and targets of links."""

import os
import posixpath
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from pyexec.domain.tar_parser import TarParser
from pyexec.errors import InvalidRequest
from pyexec.guest.archive import BadArchive, unpack
from tests.domain.tars import BLOCK, Entry, check, pax_record, refused, sign, tar
from tests.domain.test_unpack import base256, frames_of
from tests.support.cases import examples

NAME, SIZE, KIND, TARGET, PREFIX, ORIGINAL_SIZE = 0, 124, 156, 157, 345, 483
Tree = dict[str, tuple[str, object]]


@frozen
class Extended:
    """An extended header. `padding` follows the content in its last block."""

    kind: bytes
    content: bytes
    padding: bytes = b""

    def encode(self) -> bytes:
        info = tarfile.TarInfo("header")
        info.type, info.size = self.kind, len(self.content)
        rest = -len(self.content) % BLOCK
        return info.tobuf(tarfile.USTAR_FORMAT) + self.content + self.padding[:rest].ljust(rest, b"\0")


@frozen
class Block:
    """The header of a member, and what follows it."""

    name: bytes
    kind: bytes
    target: bytes
    size: bytes
    original_size: bytes
    content: bytes

    def encode(self) -> bytes:
        data = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
        data[NAME : NAME + 100] = self.name.ljust(100, b"\0")
        data[KIND : KIND + 1] = self.kind
        data[TARGET : TARGET + 100] = self.target.ljust(100, b"\0")
        data[SIZE : SIZE + 12] = self.size
        if self.kind == tarfile.GNUTYPE_SPARSE:
            data[ORIGINAL_SIZE : ORIGINAL_SIZE + 12] = self.original_size
        sign(data)
        return bytes(data) + self.content


def rarely(values, default):
    return st.integers(0, 9).flatmap(lambda number: st.just(default) if number else values)


names = rarely(st.sampled_from([b"a.py/.", b"", b".", b"a\0b"]), b"a.py") | st.sampled_from(
    [
        b"a.py",
        b"./a.py",
        b"a.py/",
        b"b",
        b"b/",
        b"b/c",
        b"c/./d",
        b"c//d",
        b"e",
        b"f.py\0",
        b"x" * 100,
    ]
)
KINDS = [
    *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE),
    tarfile.GNUTYPE_SPARSE,
]
numbers = st.sampled_from([0, 1, 5, 511, 512, 513, 1024])
header_numbers = numbers.map(lambda n: b"%011o\0" % n) | st.one_of(
    numbers.map(lambda n: base256(12, n)),
    st.sampled_from([b" 5 \0".ljust(12, b"\0"), b"-5".ljust(12, b"\0"), b"1_0".ljust(12, b"\0"), bytes(12)]),
)
values = (
    names
    | numbers.map(lambda n: b"%d" % n)
    | st.sampled_from([b"0,5", b"0,5,10,2", b"-1", b"1_0", b"+5", b"05", b" 5"])
)
keys = st.sampled_from(
    [
        *(b"path", b"linkpath", b"size", b"hdrcharset", b"mtime", b"comment"),
        *(b"GNU.sparse.name", b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.map"),
        *(b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.offset", b"GNU.sparse.numbytes"),
        b"GNU.sparse.numblocks",
    ]
)
fitting = st.one_of(
    st.tuples(st.sampled_from([b"path", b"linkpath", b"GNU.sparse.name"]), names),
    st.tuples(
        st.sampled_from([b"size", b"GNU.sparse.size", b"GNU.sparse.realsize"]),
        numbers.map(lambda n: b"%d" % n),
    ),
    st.sampled_from(
        [
            (b"hdrcharset", b"BINARY"),
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.map", b"0,5"),
            (b"comment", b"11 path=x\n"),
        ]
    ),
)
records = st.lists(fitting | st.tuples(keys, values), max_size=4).map(
    lambda pairs: b"".join(pax_record(key, value) for key, value in pairs)
)
extended = st.builds(
    Extended,
    rarely(st.sampled_from([tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE]), tarfile.XHDTYPE),
    records | st.builds(lambda one, other: one + b"\0" + other, records, records),
    rarely(records, b""),
) | st.builds(
    Extended,
    st.sampled_from([tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]),
    st.builds(lambda name, end: name + end, names, st.sampled_from([b"\0", b"", b"\0x"])),
    rarely(st.just(b"x"), b""),
)
contents = st.lists(
    st.sampled_from([b"x" * BLOCK, b"1\n0\n5\n".ljust(BLOCK, b"\0"), tar([Entry("hidden.py")])[:BLOCK]]),
    max_size=2,
).map(b"".join)
blocks = st.builds(
    Block, names, st.sampled_from(KINDS), names, header_numbers, header_numbers, contents
) | st.builds(
    lambda name, kind, content: Block(
        name, kind, b"a.py", b"%011o\0" % len(content), b"%011o\0" % 5, content
    ),
    names,
    st.sampled_from([tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE]),
    contents,
)


def seen_by_server(data: bytes) -> Tree:
    """Return the files that the archive describes. A later member replaces an earlier one."""
    tree: Tree = {}
    for member in TarParser().feed(data):
        name = posixpath.normpath(member.name.decode())
        match member.kind:
            case tarfile.DIRTYPE:
                tree[name] = ("directory", None)
            case tarfile.SYMTYPE:
                tree[name] = ("symbolic link", member.target.decode())
            case tarfile.LNKTYPE:
                tree[name] = tree[posixpath.normpath(member.target.decode())]
            case _:
                tree[name] = ("file", member.size)
        while name := posixpath.dirname(name):
            tree[name] = ("directory", None)
    tree.pop(".", None)
    return tree


def seen_by_guest(folder: Path) -> Iterator[tuple[str, tuple[str, object]]]:
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield name, ("symbolic link", os.readlink(path))
        elif path.is_dir():
            yield name, ("directory", None)
        else:
            yield name, ("file", path.stat().st_size)


def is_sparse(data: bytes) -> bool:
    return b"GNU.sparse" in data or any(data[at : at + 1] == b"S" for at in range(KIND, len(data), BLOCK))


@settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(st.lists(extended, max_size=3), blocks), max_size=3),
    rarely(st.lists(extended, max_size=1), []),
)
def test_server_and_guest_see_the_same_archive(members, last) -> None:
    data = tar([Entry("main.py", b"x" * 10)])[: 2 * BLOCK]
    for headers, block in members:
        data += b"".join(header.encode() for header in headers) + block.encode()
    data += b"".join(header.encode() for header in last) + bytes(2 * BLOCK)
    try:
        check(data)
    except InvalidRequest:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(frames_of(data), folder)
        except BadArchive:  # a map that names more data than there is: the caller gets the error
            assert is_sparse(data)
            return
        assert dict(seen_by_guest(Path(folder))) == seen_by_server(data)


def first(kind: bytes = tarfile.REGTYPE, name: bytes = b"b", target: bytes = b"a.py") -> bytes:
    return Block(name, kind, target, b"%011o\0" % 0, b"%011o\0" % 5, b"").encode()


PATH = pax_record(b"path", b"b.py")
SCRIPT = tar([Entry("a.py", b"x")])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            SCRIPT[: 2 * BLOCK] + Extended(tarfile.XHDTYPE, PATH).encode() + SCRIPT[2 * BLOCK :],
            "no member follows",
        ),
        (
            Extended(tarfile.XHDTYPE, pax_record(b"comment", b"x"), padding=PATH).encode() + SCRIPT,
            "longer than its size",
        ),
        (Extended(tarfile.GNUTYPE_LONGNAME, b"a", padding=b"b").encode() + SCRIPT, "longer than its size"),
        (
            Extended(tarfile.XHDTYPE, PATH + pax_record(b"GNU.sparse.name", b"c.py")).encode() + SCRIPT,
            "two names",
        ),
        (
            Extended(tarfile.XHDTYPE, pax_record(b"size", b"0")).encode()
            + first(tarfile.GNUTYPE_SPARSE)
            + SCRIPT,
            "two sizes",
        ),
        (first(name=b"b/.") + SCRIPT, "ends with '/.'"),
        (
            Extended(tarfile.XHDTYPE, pax_record(b"comment", b"x")).encode()
            + first(tarfile.AREGTYPE, b"b/")
            + SCRIPT,
            "the format before POSIX",
        ),
        (SCRIPT[: 2 * BLOCK] + first(tarfile.LNKTYPE, target=b"a.py/") + SCRIPT[2 * BLOCK :], "not a file"),
    ],
)
def test_what_tarfile_reads_in_another_way_is_refused(data: bytes, words: str) -> None:
    assert words in str(refused(data))


def test_a_link_with_a_slash_at_its_end_is_no_script() -> None:
    data = first(tarfile.SYMTYPE, b"main.py", b"a.py/") + SCRIPT
    assert check(data) == "a.py"
    assert "leads to no file" in str(refused(data, entrypoint="main.py"))


def test_a_file_with_a_slash_at_its_end_can_replace_another(tmp_path: Path) -> None:
    name = Extended(tarfile.GNUTYPE_LONGNAME, b"a.py/\0").encode()
    data = SCRIPT[: 2 * BLOCK] + name + first() + SCRIPT[2 * BLOCK :]
    assert check(data) == "a.py"
    unpack(frames_of(data), str(tmp_path))
    assert (tmp_path / "a.py").read_bytes() == b""
