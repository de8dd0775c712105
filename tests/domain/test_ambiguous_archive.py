"""Test archives that `tarfile` in the sandbox could read in another way than the server: names, links, sparse maps."""

import tarfile
import tempfile
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from pyexec.domain.archive import LINK_CHARS_MAX, NAME_BYTES_MAX
from pyexec.domain.tar_parser import SPARSE_PARTS_MAX
from pyexec.errors import InvalidRequest, TooLarge
from pyexec.guest.archive import unpack
from tests.domain.tars import BLOCK, LIMITS, Entry, check, pax, refused, tar
from tests.domain.test_unpack import frames_of

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
