"""Test reading one file out of an archive: links, replaced files, archives that are cut off, and hostile ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.tar_member import read_member
from tests.support.archives import END, member, pax, tar_of

LINK, HARD, FOLDER, FIFO = b"2", b"1", b"5", b"6"
ARCHIVE = tar_of({"a.py": "first", "lib/b.py": "second"})


@pytest.mark.parametrize(
    ("archive", "content"),
    [
        (tar_of({"./x.py": "here"}), b"here"),
        (tar_of({"y.py": "other"}), None),
        (tar_of({"x.py": "old"})[: -len(END)] + tar_of({"x.py": "new"}), b"new"),
        (member("d/y.py", "far") + member("x.py", kind=LINK, target="d/y.py") + END, b"far"),
        (member("y.py", "far") + member("x.py", kind=HARD, target="y.py") + END, b"far"),
        (
            member("y.py", "far") + member("x.py", kind=HARD, target="./y.py") + member("y.py", "new") + END,
            b"far",
        ),
        (member("x.py", kind=HARD, target="x.py") + END, None),
        (member("x.py", kind=LINK, target="x.py") + END, None),
        (member("x.py", kind=LINK, target="../x.py") + END, None),
        (member("x.py", kind=FOLDER) + END, None),
        (member("x.py", kind=FIFO) + END, None),
        (
            pax({b"GNU.sparse.map": b"0,1", b"GNU.sparse.size": b"99999999999"}) + member("x.py", "a") + END,
            None,
        ),
        (b"", None),
        (bytes(2048), None),
        (b"not a tar" * 200, None),
    ],
    ids=range(15),
)
def test_a_file_is_read(archive: bytes, content: bytes | None) -> None:
    assert read_member(archive, "x.py") == content


def test_links_to_directories_are_followed() -> None:
    archive = member("a/b/x.py", "far") + member("c/d", kind=LINK, target="../a") + END
    assert read_member(archive, "c/d/b/x.py") == b"far"
    assert read_member(archive, "c/b/x.py") is None


@pytest.mark.parametrize("length", range(0, len(ARCHIVE), 101))
def test_an_archive_that_is_cut_off_has_the_beginning_of_its_files(length: int) -> None:
    for name, content in {"a.py": b"first", "lib/b.py": b"second"}.items():
        found = read_member(ARCHIVE[:length], name)
        assert found is None or content.startswith(found)
    assert length < 1024 or read_member(ARCHIVE[:length], "a.py") == b"first"


@given(st.data())
def test_no_archive_raises(data: st.DataObject) -> None:
    damaged = bytearray(pax({b"path": b"a.py", b"GNU.sparse.major": b"1"}) + ARCHIVE)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read_member(bytes(damaged), "a.py")
