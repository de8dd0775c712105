"""The tar check against the standard library as the oracle, in every format and however the bytes are cut."""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st

from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.tar_stream import BLOCK
from pyexec.errors import InvalidRequest

LIMITS = ArchiveLimits(bytes_max=1024 * 1024, members_max=50)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@frozen
class Entry:
    """A member to be put into an archive."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""


def add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.name)
    info.type, info.linkname, info.size = entry.kind, entry.target, len(entry.content)
    archive.addfile(info, io.BytesIO(entry.content))


def tar(entries: Iterable[Entry], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8") as archive:
        for entry in entries:
            add(archive, entry)
    return buffer.getvalue()


def check(
    data: bytes, *, entrypoint: str | None = None, limits: ArchiveLimits = LIMITS, step: int = 0
) -> str:
    checked = ArchiveCheck(limits=limits, entrypoint=entrypoint)
    for at in range(0, len(data), step or max(1, len(data))):
        checked.feed(data[at : at + step] if step else data)
    return checked.finish()


def refused(data: bytes, *, entrypoint: str | None = None, limits: ArchiveLimits = LIMITS) -> InvalidRequest:
    """The refusal, which is the same however the upload is cut."""
    refusals = []
    for step in (0, 1, 511, 512, 513):
        with pytest.raises(InvalidRequest) as caught:
            check(data, entrypoint=entrypoint, limits=limits, step=step)
        refusals.append((type(caught.value), str(caught.value), caught.value.field))
    assert len(set(refusals)) == 1
    return caught.value


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
    """CONTRACT §2, written down a second time."""
    scripts = [name for name in names if name.endswith(".py")]
    at_root = [name for name in scripts if "/" not in name]
    for choice in (
        (["main.py"] if "main.py" in scripts else []),
        (["__main__.py"] if "__main__.py" in scripts else []),
        at_root,
        scripts,
    ):
        if choice:
            return choice[0]
    return None


def clashes(members: list[Entry]) -> bool:
    """Whether a name stands for two things: a file twice, or a file and a directory."""
    files = [m.name for m in members if m.kind != tarfile.DIRTYPE]
    folders = {m.name for m in members if m.kind == tarfile.DIRTYPE}
    for member in members:
        pieces = member.name.split("/")
        folders |= {"/".join(pieces[:n]) for n in range(1, len(pieces))}
    return len(set(files)) < len(files) or bool(folders & set(files))


@given(entries, st.sampled_from(sorted(FORMATS)), st.integers(1, 3000))
@example([Entry("main.py")], "ustar", 1)
@example([Entry("a/" * 100 + "main.py")], "gnu", 1)
@example([Entry("a/" * 100 + "main.py")], "pax", 1)
@example([Entry("__main__.py"), Entry("z.py"), Entry("main.py")], "pax", 100)
@example([Entry("a/b"), Entry("a/b/c.py")], "pax", 512)
def test_what_the_standard_library_writes_is_accepted(members: list[Entry], format: str, step: int) -> None:
    try:
        data = tar(members, FORMATS[format])
    except ValueError:
        assert format == "ustar"  # which has no long names
        return
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        names = [info.name for info in archive if info.isreg()]
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
def test_an_accepted_archive_unpacks_and_no_link_leaves_it(members: list[Entry]) -> None:
    data = tar([Entry("main.py", b"1"), *members])
    try:
        check(data)
    except InvalidRequest:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "work"
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for info in archive:
                info.mode = 0o755
                archive.extract(info, root, filter="fully_trusted")
        for directory, folders, files in os.walk(root):
            for name in [*folders, *files]:
                path = Path(directory, name)
                try:
                    landing = path.resolve()
                except RuntimeError:
                    continue  # a loop of links leads nowhere
                assert landing == root or root in landing.parents, f"{path} leads to {landing}"


@given(st.binary(max_size=3000), st.integers(1, 3000))
def test_any_bytes_are_refused_and_nothing_else(data: bytes, step: int) -> None:
    with pytest.raises(InvalidRequest):
        check(data, step=step)


@given(entries, st.sampled_from(["gnu", "pax"]), st.data())
def test_a_damaged_archive_is_accepted_or_refused_and_nothing_else(
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


def sign(data: bytearray, block: int = 0) -> None:
    """Makes the header's checksum right again."""
    at = block * BLOCK
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])


def header(change: Callable[[bytearray], None], name: str = "main.py") -> bytes:
    """An archive of one member, whose header has been changed."""
    data = bytearray(tar([Entry(name, b"x" * 10)], tarfile.GNU_FORMAT))
    change(data)
    sign(data)
    return bytes(data)


def put(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(value)] = value

    return change


def pax(records: dict[bytes, bytes], kind: bytes = tarfile.XHDTYPE, after: bytes = b"") -> bytes:
    """An archive that begins with an extended header of these records."""
    body = b"".join(pax_record(key, value) for key, value in records.items())
    info = tarfile.TarInfo("./PaxHeaders/x")
    info.type, info.size = kind, len(body)
    padding = bytes(-len(body) % BLOCK)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + padding + (after or tar([Entry("main.py", b"x")]))


def pax_record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


@pytest.mark.parametrize("entrypoint", [None, "main.py", "pkg/b.py"])
def test_the_entrypoint_is_what_was_named_or_else_detected(entrypoint: str | None) -> None:
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


COMPRESSED = {
    "gzip": b"\x1f\x8b\x08\x00" + bytes(600),
    "zip": b"PK\x03\x04" + bytes(600),
    "xz": b"\xfd7zXZ\x00\x00" + bytes(600),
    "bzip2": b"BZh91AY&SY" + bytes(600),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(600),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(600),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_upload_is_told_what_to_send(kind: str) -> None:
    for length in (8, 600):
        error = refused(COMPRESSED[kind][:length])
        assert error.code == "unsupported_archive"
        assert kind in str(error)
        assert "uncompressed tar" in str(error)


def test_a_file_may_be_named_like_a_compressed_format() -> None:
    assert check(tar([Entry("BZhello.py"), Entry("PK.txt")])) == "BZhello.py"


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_cut_at_any_block_is_refused(format: str) -> None:
    members = [Entry("main.py", b"x" * 1200), Entry("ü" * 20 + ".py", b"y"), Entry("d", kind=tarfile.DIRTYPE)]
    data = tar(members, FORMATS[format])
    end = len(data.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK
    assert check(data[: end + BLOCK]) == "main.py"
    for cut in range(BLOCK, end + 1, BLOCK):
        assert "cut short" in str(refused(data[:cut]))
        assert "cut short" in str(refused(data[: cut - 1]))


def test_an_empty_upload_or_archive_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        check(b"")
    assert "no members" in str(refused(tar([])))


BAD_NAMES = {
    "absolute": "/etc/main.py",
    "parent": "../main.py",
    "inner parent": "a/../../main.py",
    "long": "a/" * 2500 + "main.py",
    "long part": "a" * 256 + ".py",
    "NUL": "a\0b.py",
    "dot": ".",
}


@pytest.mark.parametrize("format", ["gnu", "pax"])
@pytest.mark.parametrize("which", BAD_NAMES)
def test_a_name_that_cannot_be_unpacked_is_refused(which: str, format: str) -> None:
    name = BAD_NAMES[which]
    if format == "pax":
        data = pax({b"path": name.encode()})
    else:
        long = tarfile.TarInfo("././@LongLink")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, len(name) + 1
        body = name.encode() + b"\0"
        data = (
            long.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % BLOCK) + tar([Entry("main.py", b"x")])
        )
    assert refused(data).field == "tar"


@pytest.mark.parametrize("data", [header(put(0, b"\xff\xfe.py")), pax({b"path": b"caf\xe9.py"})])
def test_a_name_that_is_not_utf8_is_refused(data: bytes) -> None:
    assert "UTF-8" in str(refused(data))


def test_the_refusal_names_the_member() -> None:
    assert "'../main.py'" in str(refused(tar([Entry("../main.py")])))


BAD_MEMBERS = {
    "symbolic link out": Entry("s", kind=tarfile.SYMTYPE, target="../x"),
    "symbolic link to the host": Entry("s", kind=tarfile.SYMTYPE, target="/etc/passwd"),
    "symbolic link nowhere": Entry("s", kind=tarfile.SYMTYPE, target=""),
    "hard link out": Entry("h", kind=tarfile.LNKTYPE, target="../x"),
    "hard link to the host": Entry("h", kind=tarfile.LNKTYPE, target="/etc/passwd"),
    "hard link to nothing": Entry("h", kind=tarfile.LNKTYPE, target="absent"),
    "character device": Entry("c", kind=tarfile.CHRTYPE),
    "block device": Entry("b", kind=tarfile.BLKTYPE),
    "FIFO": Entry("f", kind=tarfile.FIFOTYPE),
    "unknown type": Entry("u", kind=b"Z"),
    "twice": Entry("./main.py", b"2"),
    "file over directory": Entry("d", b"2"),
    "directory over file": Entry("main.py", kind=tarfile.DIRTYPE),
    "below a file": Entry("main.py/x", b"2"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("which", BAD_MEMBERS)
def test_a_member_that_must_not_be_is_refused(which: str, format: str) -> None:
    members = [Entry("d/x.txt"), Entry("main.py", b"1"), BAD_MEMBERS[which]]
    assert refused(tar(members, FORMATS[format])).field == "tar"


@pytest.mark.parametrize("format", FORMATS)
def test_links_that_stay_inside_are_accepted(format: str) -> None:
    members = [
        Entry("main.py", b"1"),
        Entry("d/e", kind=tarfile.SYMTYPE, target="../main.py"),
        Entry("h", kind=tarfile.LNKTYPE, target="main.py"),
        Entry("d", kind=tarfile.DIRTYPE),
    ]
    assert check(tar(members, FORMATS[format])) == "main.py"


def test_nothing_is_written_through_a_symbolic_link() -> None:
    members = [Entry("main.py"), Entry("d", kind=tarfile.SYMTYPE, target="e"), Entry("d/x", b"1")]
    assert "behind the symbolic link 'd'" in str(refused(tar(members)))


def test_more_members_than_allowed_are_too_many() -> None:
    limits = ArchiveLimits(bytes_max=10**9, members_max=99_999)
    block = tar([Entry("main.py")])[:BLOCK]
    checked = ArchiveCheck(limits=limits)

    def feed(number: int) -> None:
        member = bytearray(block)
        member[:12] = b"%08d.py\0" % number
        sign(member)
        checked.feed(member)

    for number in range(99_999):
        feed(number)
    with pytest.raises(InvalidRequest) as caught:
        feed(99_999)
    assert caught.value.code == "too_large"
    assert checked.members == 100_000


TEN_GB = 10 * 1000**3


def gnu_sparse(data: bytearray) -> None:
    """GNU's old sparse member: ten bytes stored, ten gigabytes unpacked."""
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[386:410] = b"%011o\0%011o\0" % (TEN_GB - 10, 10)
    data[483:495] = b"%011o\0" % TEN_GB if TEN_GB < 8**11 else b"\x80" + TEN_GB.to_bytes(11, "big")


SPARSE = {
    "GNU": header(gnu_sparse),
    "pax 0.0": pax({b"GNU.sparse.size": b"%d" % TEN_GB, b"GNU.sparse.numblocks": b"0"}),
    "pax 1.0": pax(
        {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": b"main.py",
            b"GNU.sparse.realsize": b"%d" % TEN_GB,
        }
    ),
    "plain": header(put(124, b"\x80" + TEN_GB.to_bytes(11, "big"))),
    "pax size": pax({b"size": b"%d" % TEN_GB}),
}


@pytest.mark.parametrize("which", SPARSE)
def test_contents_that_cannot_fit_are_too_large(which: str) -> None:
    error = refused(SPARSE[which])
    assert error.code == "too_large"
    assert error.field == "config.disk_mb"


def test_the_limit_itself_is_allowed() -> None:
    data = tar([Entry("main.py", bytes(600)), Entry("x", bytes(400))])
    assert check(data, limits=ArchiveLimits(bytes_max=1000, members_max=2)) == "main.py"
    assert refused(data, limits=ArchiveLimits(bytes_max=999, members_max=2)).code == "too_large"
    assert refused(data, limits=ArchiveLimits(bytes_max=1000, members_max=1)).code == "too_large"


def test_a_small_sparse_file_that_tar_wrote_is_accepted(tmp_path: Path) -> None:
    with (tmp_path / "main.py").open("wb") as file:
        file.write(b"print(1)\n")
        for hole in range(1, 40):
            file.seek(hole * 8192)
            file.write(b"#\n")
    for options in (["--format=gnu"], ["--format=posix"]):
        for version in ("0.0", "0.1", "1.0"):
            command = ["tar", "-cS", *options, f"--sparse-version={version}", "main.py"]
            data = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
            checked = ArchiveCheck(limits=LIMITS)
            checked.feed(data)
            assert checked.finish() == "main.py"
            assert checked.unpacked_bytes == (tmp_path / "main.py").stat().st_size


@pytest.mark.parametrize(
    "records",
    [{b"size": b"-1"}, {b"size": b"1e3"}, {b"size": b"9" * 30}, {b"GNU.sparse.realsize": b"x"}],
)
def test_sizes_that_are_no_numbers_are_refused(records: dict[bytes, bytes]) -> None:
    assert "damaged" in str(refused(pax(records)))


@pytest.mark.parametrize("body", [b"garbage", b"999 path=x\n", b"0 \n", b"5 a=b", b"3 x"])
def test_an_extended_header_that_cannot_be_read_is_refused(body: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    data = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % BLOCK) + tar([Entry("main.py")])
    assert "damaged" in str(refused(data))


def test_the_last_of_two_records_counts_as_for_everyone() -> None:
    body = pax_record(b"path", b"good.py") + pax_record(b"path", b"../bad.py")
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    data = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % BLOCK) + tar([Entry("main.py")])
    assert "../bad.py" in str(refused(data))


def test_a_comment_for_the_whole_archive_is_fine() -> None:
    assert check(pax({b"comment": b"0123456789abcdef"}, tarfile.XGLTYPE)) == "main.py"


@pytest.mark.parametrize(
    "record", [b"path", b"linkpath", b"size", b"GNU.sparse.name", b"GNU.sparse.realsize"]
)
def test_a_name_or_size_for_the_whole_archive_is_refused(record: bytes) -> None:
    assert "all members" in str(refused(pax({record: b"7"}, tarfile.XGLTYPE)))


def test_a_huge_extended_header_is_refused_before_it_is_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 10**9
    with pytest.raises(InvalidRequest, match="extended header"):
        ArchiveCheck(limits=LIMITS).feed(info.tobuf(tarfile.USTAR_FORMAT))
