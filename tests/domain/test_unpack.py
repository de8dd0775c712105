"""Test that the guest unpacks every archive that the server accepts, with any times, modes and owners."""

import io
import os
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyexec.domain.archive import ArchiveCheck
from pyexec.errors import InvalidRequest
from pyexec.guest.archive import LAST_TIME, BadArchive, unpack
from pyexec.guest.wire import ARCHIVE, HEADER
from tests.domain.tars import LIMITS, Entry, check, header, pax, put, tar

MODE, UID, GID, MTIME = 100, 108, 116, 136


def frames_of(data: bytes, step: int = 1000) -> io.BytesIO:
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    return io.BytesIO(b"".join(HEADER.pack(ARCHIVE, len(piece)) + piece for piece in [*pieces, b""]))


def unpacked(data: bytes, folder: Path) -> os.stat_result:
    """Check and unpack an archive; return the status of main.py."""
    check(data)
    unpack(frames_of(data), str(folder))
    return (folder / "main.py").stat()


def base256(width: int, value: int) -> bytes:
    """Encode a number as GNU tar does if octal digits cannot hold it."""
    if value < 0:
        return (256**width + value).to_bytes(width, "big")
    return b"\x80" + value.to_bytes(width - 1, "big")


MTIMES = [
    b"nan",
    b"-nan",
    b"inf",
    b"-inf",
    b"1e400",
    b"9" * 300,
    b"-1",
    b"0",
    b"",
    b"noon",
    b"1e9",
    b"\xc3\xa9",
]


@pytest.mark.parametrize("value", MTIMES)
def test_every_time_in_an_extended_header_is_accepted(value: bytes, tmp_path: Path) -> None:
    assert 0 < unpacked(pax({b"mtime": value}), tmp_path).st_mtime <= LAST_TIME
    for kind in (tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
        assert 0 < unpacked(pax({b"mtime": value}, kind), tmp_path).st_mtime <= LAST_TIME


@pytest.mark.parametrize("record", [b"uid", b"gid"])
@pytest.mark.parametrize("value", [b"-1", b"9" * 30, b"9" * 5000, b"nan", b"", b"root"])
def test_every_owner_in_an_extended_header_is_accepted(record: bytes, value: bytes, tmp_path: Path) -> None:
    assert unpacked(pax({record: value}), tmp_path).st_uid == os.getuid()


NUMBERS = [-1, -(2**40), 2**31, 2**32, 2**40, 2**55]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("at", [MODE, UID, GID])
def test_every_number_in_a_header_is_accepted(value: int, at: int, tmp_path: Path) -> None:
    status = unpacked(header(put(at, base256(8, value))), tmp_path)
    assert stat.S_IMODE(status.st_mode) & 0o600 == 0o600


@pytest.mark.parametrize("value", [*NUMBERS, 2**85])
def test_every_time_in_a_header_is_accepted(value: int, tmp_path: Path) -> None:
    assert 0 < unpacked(header(put(MTIME, base256(12, value))), tmp_path).st_mtime <= LAST_TIME


values = st.sampled_from(
    [*MTIMES, b"1", b"-5", b"0x1", b"1_0", b"9" * 18, b"9" * 5000, b"a/b", b"x\0"]
) | st.binary(max_size=20)
keys = st.sampled_from(
    [
        b"mtime",
        b"atime",
        b"ctime",
        b"uid",
        b"gid",
        b"uname",
        b"gname",
        b"comment",
        b"hdrcharset",
        b"mode",
        b"size",
    ]
) | st.binary(min_size=1, max_size=10).filter(
    lambda key: b"=" not in key and not key.startswith(b"GNU.sparse")
)
kinds = st.sampled_from([tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
changes = st.lists(
    st.tuples(
        st.sampled_from([MODE, UID, GID, MTIME]),
        st.binary(min_size=8, max_size=8) | st.integers(-(2**50), 2**50).map(lambda value: base256(8, value)),
    ),
    max_size=3,
)


@given(st.lists(st.tuples(st.dictionaries(keys, values, max_size=4), kinds), max_size=3), changes)
@example([({b"mtime": b"nan"}, tarfile.XHDTYPE)], [])
@example([({b"hdrcharset": b"\x80"}, tarfile.XGLTYPE)], [])
@example([({b"comment": b"5 hdrcharset=\x80\n"}, tarfile.XHDTYPE)], [])
@example([], [(MODE, base256(8, 2**40))])
def test_every_accepted_archive_is_unpacked(headers, numbers) -> None:
    def change(data: bytearray) -> None:
        for at, value in numbers:
            data[at : at + 8] = value

    data = header(change)
    for records, kind in headers:
        data = pax(records, kind, after=data)
    try:
        check(data)
    except InvalidRequest:
        return
    with tempfile.TemporaryDirectory() as folder:
        unpacked(data, Path(folder))


sparse = st.dictionaries(
    st.sampled_from(
        [
            *(b"GNU.sparse.map", b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.numblocks"),
            *(
                b"GNU.sparse.offset",
                b"GNU.sparse.numbytes",
                b"GNU.sparse.realsize",
                b"GNU.sparse.name",
                b"size",
            ),
        ]
    ),
    st.sampled_from([b"0", b"1", b"x", b"0,10", b"5,5", b"1,2,3", b"9" * 15, b"9" * 5000, b"-1", b"a.py"]),
)


@given(sparse)
@example({b"GNU.sparse.map": b"x"})
def test_a_sparse_file_is_unpacked_or_is_a_bad_archive(records: dict[bytes, bytes]) -> None:
    data = pax(records)
    with tempfile.TemporaryDirectory() as folder, suppress(InvalidRequest, BadArchive):
        check(data)
        unpack(frames_of(data), folder)


@given(
    st.binary(max_size=2000) | st.binary(max_size=500).map(lambda data: tar([Entry("main.py")])[:512] + data)
)
def test_any_bytes_are_unpacked_or_are_a_bad_archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(BadArchive):
        unpack(frames_of(data), folder)


def with_attributes(members: dict[str, Callable[[tarfile.TarInfo], object]]) -> bytes:
    """Return an archive of empty members; a name that ends with a slash is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, change in members.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            change(info)
            archive.addfile(info)
    return buffer.getvalue()


def test_the_owner_can_use_all_members(tmp_path: Path) -> None:
    def mode(value: int) -> Callable[[tarfile.TarInfo], object]:
        return lambda info: setattr(info, "mode", value)

    members = {"./": mode(0o555), "main.py": mode(0), "d/": mode(0), "d/x": mode(0o444), "d/run": mode(0o155)}
    unpacked(with_attributes(members), tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path, *tmp_path.rglob("*")]}
    assert modes == {tmp_path.name: 0o755, "main.py": 0o600, "d": 0o700, "x": 0o644, "run": 0o755}


def test_modification_times_are_kept_and_placeholders_become_now(tmp_path: Path) -> None:
    def mtime(value: float) -> Callable[[tarfile.TarInfo], object]:
        return lambda info: setattr(info, "mtime", value)

    start = int(time.time())
    times = {
        "main.py": 0,
        "zip.py": 315_532_800,
        "old.py": -5,
        "d/": 0,
        "kept.py": 1_000_000_000.5,
        "e/": 10**9,
    }
    unpacked(with_attributes({name: mtime(value) for name, value in times.items()}), tmp_path)
    for name in ("main.py", "zip.py", "old.py", "d"):
        assert start <= (tmp_path / name).stat().st_mtime <= time.time() + 1
    assert (tmp_path / "kept.py").stat().st_mtime == 1_000_000_000.5
    assert (tmp_path / "e").stat().st_mtime == 10**9


def test_a_later_member_replaces_an_earlier_one(tmp_path: Path) -> None:
    members = [
        Entry("d", kind=tarfile.DIRTYPE),
        Entry("main.py", b"1"),
        Entry("hard", kind=tarfile.LNKTYPE, target="main.py"),
        Entry("soft", kind=tarfile.SYMTYPE, target="main.py"),
        Entry("./main.py", b"22"),
        Entry("soft", kind=tarfile.SYMTYPE, target="hard"),
        Entry("d", kind=tarfile.DIRTYPE),
        Entry("x", b"x"),
        Entry("x", kind=tarfile.LNKTYPE, target="main.py"),
        Entry("hard2", kind=tarfile.LNKTYPE, target="hard"),
        Entry("hard2", b"own"),
    ]
    unpacked(tar(members), tmp_path)
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert found == {"main.py": "22", "hard": "1", "soft": "1", "x": "22", "hard2": "own"}
    assert (tmp_path / "soft").readlink() == Path("hard")


def test_a_replaced_member_counts_in_the_size() -> None:
    checked = ArchiveCheck(limits=LIMITS)
    checked.feed(tar([Entry("main.py", b"1"), Entry("main.py", b"22")]))
    assert (checked.finish(), checked.unpacked_bytes, checked.members) == ("main.py", 3, 2)
