"""Test archives that `tarfile` in the sandbox could read in another way than the server: names, links, sparse maps."""

import tarfile
import tempfile
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyexec.domain.archive import LINK_CHARS_MAX, NAME_BYTES_MAX
from pyexec.domain.tar_parser import SPARSE_PARTS_MAX, TarParser
from pyexec.errors import InvalidRequest, TooLarge
from pyexec.guest.archive import BadArchive, unpack
from tests.domain.tars import BLOCK, LIMITS, Entry, check, pax, refused, tar
from tests.domain.test_unpack import frames_of
from tests.support.cases import examples

NAMES = [b"one.py", b"two.py", b"../evil.py", b"d/three.py"]
names = st.sampled_from(NAMES)


def long_name(name: bytes, after: bytes) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, len(name) + 1
    return info.tobuf(tarfile.GNU_FORMAT) + (name + b"\0").ljust(BLOCK, b"\0") + after


headers = st.lists(
    st.tuples(
        st.just("pax"), st.lists(st.tuples(st.sampled_from([b"path", b"GNU.sparse.name"]), names), max_size=3)
    )
    | st.tuples(st.just("long name"), names),
    max_size=3,
)


@given(headers)
@example([("pax", [(b"path", b"one.py")]), ("pax", [(b"path", b"../evil.py")])])
@example([("pax", [(b"path", b"../evil.py")]), ("long name", b"one.py")])
@example([("pax", [(b"GNU.sparse.name", b"one.py"), (b"path", b"../evil.py")])])
@example([("pax", [(b"path", b"one.py"), (b"GNU.sparse.name", b"two.py")])])
def test_a_member_has_the_name_that_was_checked(headers) -> None:
    data = tar([Entry("main.py", b"x")])
    for kind, value in headers:
        data = long_name(value, data) if kind == "long name" else pax(dict(value), after=data)
    try:
        entrypoint = check(data)
    except InvalidRequest:
        return
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "work"
        folder.mkdir()
        unpack(frames_of(data), str(folder))
        files = [path for path in Path(outer).rglob("*") if path.is_file()]
        assert files == [folder / entrypoint]


HIDDEN = tar([Entry("hidden.py", b"x")])[:BLOCK]
"""A header that is the content of another member, and which only a confused reader takes for a member."""
sizes = st.sampled_from([b"0", b"10", b"512", b"1024", b"1536"])
sparse_records = st.fixed_dictionaries(
    {},
    optional={
        b"GNU.sparse.major": st.sampled_from([b"1", b"0", b"01"]),
        b"GNU.sparse.minor": st.sampled_from([b"0", b"1"]),
        b"GNU.sparse.realsize": sizes,
        b"GNU.sparse.size": sizes,
        b"GNU.sparse.map": st.sampled_from([b"0,0", b"0,5"]),
        b"GNU.sparse.numblocks": st.just(b"1"),
        b"size": sizes,
    },
)
blocks = st.sampled_from([b"0\n", b"1\n0\n5\n", b"1\n0\n512\n", HIDDEN, b"y" * BLOCK]).map(
    lambda text: text.ljust(BLOCK, b"\0")
)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE])
MAP = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"}


@settings(max_examples=examples(500))
@given(st.lists(sparse_records, max_size=2), kinds, st.lists(blocks, max_size=3))
@example([MAP], tarfile.SYMTYPE, [b"0\n".ljust(BLOCK, b"\0"), HIDDEN])
@example([MAP | {b"size": b"1024"}], tarfile.REGTYPE, [b"0\n".ljust(BLOCK, b"\0"), HIDDEN])
@example([{b"GNU.sparse.map": b"0,0", b"GNU.sparse.size": b"0", b"size": b"512"}], tarfile.REGTYPE, [HIDDEN])
@example([MAP], tarfile.REGTYPE, [b"1\n0\n10\n".ljust(BLOCK, b"\0"), HIDDEN])
def test_an_archive_has_the_members_that_were_checked(headers, kind, content) -> None:
    info = tarfile.TarInfo("first")
    info.type, info.linkname = kind, "main.py" if kind == tarfile.SYMTYPE else ""
    info.size = 0 if kind in (tarfile.DIRTYPE, tarfile.SYMTYPE) else BLOCK * len(content)
    data = info.tobuf(tarfile.GNU_FORMAT) + b"".join(content) + tar([Entry("main.py", b"x")])
    for records in headers:
        data = pax(records, after=data)
    try:
        check(data)
    except InvalidRequest:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(frames_of(data), folder)
        except BadArchive:  # a map that names more data than there is: the caller gets the error
            return
        found = {path.name for path in Path(folder).iterdir()}
    assert found == {member.name.decode() for member in TarParser().feed(data)}


def test_two_headers_with_a_name_are_refused() -> None:
    data = pax({b"path": b"one.py"}, after=pax({b"path": b"two.py"}))
    assert "ambiguous" in str(refused(data))


def sparse(parts: int, listed: int) -> bytes:
    """Return an archive with a member in GNU's sparse format 1.0, whose map says that it has so many parts."""
    listing = b"%d\n" % parts + b"0\n0\n" * listed
    content = listing.ljust(-(-len(listing) // BLOCK) * BLOCK, b"\0")
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"}
    return pax(records, after=tar([Entry("main.py", content)]))


def test_a_sparse_member_has_a_limited_number_of_parts(tmp_path: Path) -> None:
    check(sparse(2, 2))
    unpack(frames_of(sparse(2, 2)), str(tmp_path))
    assert (tmp_path / "main.py").read_bytes() == bytes(10)
    assert isinstance(refused(sparse(SPARSE_PARTS_MAX + 1, 2)), TooLarge)
    for damaged in (b"", b"x" * BLOCK, b"-1\n"):
        records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"}
        assert "damaged" in str(refused(pax(records, after=tar([Entry("main.py", damaged)]))))


def test_the_target_of_a_link_has_a_limited_length() -> None:
    links = [Entry("main.py", b"x"), Entry("l", b"", tarfile.SYMTYPE, "./" * NAME_BYTES_MAX + "main.py")]
    assert f"at most {NAME_BYTES_MAX}" in str(refused(tar(links)))


def test_the_links_of_an_archive_have_a_limited_length() -> None:
    target = "/".join(["x" * 200] * 20)
    links = [Entry(f"l{n}", b"", tarfile.SYMTYPE, target) for n in range(LINK_CHARS_MAX // len(target) + 1)]
    with pytest.raises(TooLarge, match="symbolic links"):
        check(tar([Entry("main.py", b"x"), *links]), limits=evolve(LIMITS, members_max=10_000))
