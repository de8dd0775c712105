"""Compare the tar check with the standard library, in every format and for chunks of any size."""

import io
import os
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyexec.domain.archive import ArchiveCheck
from pyexec.domain.tar_parser import BLOCK
from pyexec.errors import InvalidRequest
from tests.domain.tars import FORMATS, LIMITS, Entry, check, refused, sign, tar

parts = st.text(st.sampled_from("abü.-_ \n'"), min_size=1, max_size=60).filter(lambda p: p not in (".", ".."))
paths = st.lists(parts, min_size=1, max_size=5).map("/".join)
entries = st.lists(
    st.builds(Entry, paths.map(lambda p: p + ".py"), st.binary(max_size=1500))
    | st.builds(Entry, paths, st.binary(max_size=1500))
    | st.builds(Entry, paths, kind=st.just(tarfile.DIRTYPE)),
    min_size=1,
    max_size=6,
)


def expected_entrypoint(names: list[str]) -> str | None:
    """Find the entrypoint by the order of candidates in docs/api.md, implemented a second time."""
    # A directory's name ends with a slash.
    scripts = [name for name in names if name.endswith(".py") and not name.split("/")[-1].startswith("._")]
    at_root = [name for name in scripts if "/" not in name]
    tops = {name.split("/")[0] for name in names if "/" in name}
    in_folder = [name for name in scripts if name.count("/") == 1] if len(tops) == 1 else []
    for group in (at_root, in_folder):
        for base in ("main.py", "__main__.py"):
            for name in group:
                if name.split("/")[-1] == base:
                    return name
        if group:
            return group[0]
    for base in ("main.py", "__main__.py"):
        if nearest := sorted(
            (name for name in scripts if name.split("/")[-1] == base), key=lambda name: name.count("/")
        ):
            return nearest[0]
    return scripts[0] if scripts else None


def clashes(members: list[Entry]) -> bool:
    """Return True if a name stands for both a file and a directory."""
    files = [m.name for m in members if m.kind != tarfile.DIRTYPE]
    folders = {m.name for m in members if m.kind == tarfile.DIRTYPE}
    for member in members:
        pieces = member.name.split("/")
        folders |= {"/".join(pieces[:n]) for n in range(1, len(pieces))}
    return bool(folders & set(files))


@given(entries, st.sampled_from(sorted(FORMATS)), st.integers(1, 3000))
@example([Entry("main.py")], "ustar", 1)
@example([Entry("a/" * 100 + "main.py")], "gnu", 1)
@example([Entry("a/" * 100 + "main.py")], "pax", 1)
@example([Entry("__main__.py"), Entry("z.py"), Entry("main.py")], "pax", 100)
@example([Entry("a/b"), Entry("a/b/c.py")], "pax", 512)
@example([Entry("a/b.py"), Entry("a/main.py"), Entry("c", kind=tarfile.DIRTYPE)], "pax", 512)
@example([Entry("a/b/c.py"), Entry("d/e/f/main.py"), Entry("d/main.py")], "pax", 512)
@example([Entry("a/b.py", b"1"), Entry("a/b.py", b"2")], "pax", 512)
def test_archives_of_the_standard_library_are_accepted(members: list[Entry], format: str, step: int) -> None:
    try:
        data = tar(members, FORMATS[format])
    except ValueError:
        assert format == "ustar"  # which has no long names
        return
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        names = [info.name + "/" * info.isdir() for info in archive]
    expected = None if clashes(members) else expected_entrypoint(names)
    checked = ArchiveCheck(limits=LIMITS)
    try:
        for at in range(0, len(data), step):
            checked.feed(data[at : at + step])
        found = checked.finish()
    except InvalidRequest:
        assert expected is None
        return
    assert found == expected
    assert checked.members == len(members)
    assert checked.unpacked_bytes == sum(len(m.content) for m in members if m.kind != tarfile.DIRTYPE)


LINKS = ["d", "d/e", "s", "t", "d/s", "d/e/t", "main.py"]
targets = st.lists(st.sampled_from(["..", ".", "d", "e", "s", "t"]), min_size=1, max_size=5).map("/".join)
linked = st.lists(
    st.builds(Entry, st.sampled_from(LINKS), kind=st.just(tarfile.SYMTYPE), target=targets | st.just("/etc"))
    | st.builds(Entry, st.sampled_from(LINKS), kind=st.just(tarfile.LNKTYPE), target=st.sampled_from(LINKS))
    | st.builds(Entry, st.sampled_from(LINKS), kind=st.just(tarfile.DIRTYPE)),
    max_size=6,
)


@given(linked)
@example(
    [
        Entry("d/e/t", kind=tarfile.SYMTYPE, target=".."),
        Entry("s", kind=tarfile.SYMTYPE, target="d/e/t/../.."),
    ]
)
@example(
    [Entry("d/e/t", kind=tarfile.SYMTYPE, target="../.."), Entry("s", kind=tarfile.LNKTYPE, target="d/e/t")]
)
def test_no_link_of_an_accepted_archive_leads_outside(members: list[Entry]) -> None:
    data = tar([Entry("main.py", b"1"), *members])
    try:
        check(data)
    except InvalidRequest:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "work"
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            # Python 3.11.2 has no `filter` argument, so set the attribute.
            archive.extraction_filter = lambda member, _folder: member
            for info in archive:
                info.mode = 0o755
                archive.extract(info, root)
        for directory, folders, files in os.walk(root):
            for name in [*folders, *files]:
                path = Path(directory, name)
                try:
                    landing = path.resolve()
                except RuntimeError:
                    continue  # a loop of links leads nowhere
                assert landing == root or root in landing.parents, f"{path} leads to {landing}"


@given(st.binary(max_size=3000), st.integers(1, 3000))
def test_random_bytes_are_refused(data: bytes, step: int) -> None:
    with pytest.raises(InvalidRequest):
        check(data, step=step)


@given(entries, st.sampled_from(["gnu", "pax"]), st.data())
def test_a_damaged_archive_is_accepted_or_refused(
    members: list[Entry], format: str, data: st.DataObject
) -> None:
    damaged = bytearray(tar(members, FORMATS[format])[: 40 * BLOCK])
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.integers(0, min(len(damaged) // BLOCK - 1, 8)))
        damaged[block * BLOCK + data.draw(st.integers(0, BLOCK - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            sign(damaged, block)
    # Any other exception fails the test.
    with suppress(InvalidRequest):
        check(bytes(damaged))


@pytest.mark.parametrize("entrypoint", [None, "main.py", "pkg/b.py"])
def test_the_entrypoint_is_the_named_or_the_detected_one(entrypoint: str | None) -> None:
    data = tar([Entry("pkg/b.py"), Entry("a.py"), Entry("./main.py"), Entry("data.txt")])
    assert check(data, entrypoint=entrypoint) == (entrypoint or "main.py")


@pytest.mark.parametrize(
    ("entrypoint", "said"),
    [("absent.py", "not in the archive"), ("pkg", "directory"), ("pkg/sub", "directory")],
)
def test_an_entrypoint_that_is_no_file_is_refused(entrypoint: str, said: str) -> None:
    data = tar([Entry("pkg/sub/b.py"), Entry("pkg", kind=tarfile.DIRTYPE), Entry("main.py")])
    error = refused(data, entrypoint=entrypoint)
    assert said in str(error)
    assert error.field == "entrypoint"


def test_an_archive_without_a_script_is_refused() -> None:
    error = refused(tar([Entry("readme.txt", b"x"), Entry("x.py", kind=tarfile.DIRTYPE)]))
    assert error.field == "entrypoint"
    assert "no .py file" in str(error)


@pytest.mark.parametrize("format", FORMATS)
def test_links_that_stay_inside_are_accepted(format: str) -> None:
    members = [
        Entry("main.py", b"1"),
        Entry("d/e", kind=tarfile.SYMTYPE, target="../main.py"),
        Entry("h", kind=tarfile.LNKTYPE, target="main.py"),
        Entry("d", kind=tarfile.DIRTYPE),
    ]
    assert check(tar(members, FORMATS[format])) == "main.py"
