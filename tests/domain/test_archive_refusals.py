"""Test every archive that must be rejected, and the error message."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.tar_parser import BLOCK
from pyexec.errors import InvalidRequest
from tests.domain.tars import FORMATS, LIMITS, Entry, check, header, pax, pax_record, put, refused, sign, tar

COMPRESSED = {
    "gzip": b"\x1f\x8b\x08\x00" + bytes(600),
    "zip": b"PK\x03\x04" + bytes(600),
    "xz": b"\xfd7zXZ\x00\x00" + bytes(600),
    "bzip2": b"BZh91AY&SY" + bytes(600),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(600),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(600),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_upload_is_refused_with_a_hint(kind: str) -> None:
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
    assert "contains no files" in str(refused(tar([])))


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
    "symbolic link over file": Entry("./main.py", kind=tarfile.SYMTYPE, target="d/x.txt"),
    "hard link to itself": Entry("main.py", kind=tarfile.LNKTYPE, target="main.py"),
    "file over directory": Entry("d", b"2"),
    "directory over file": Entry("main.py", kind=tarfile.DIRTYPE),
    "below a file": Entry("main.py/x", b"2"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("which", BAD_MEMBERS)
def test_a_forbidden_member_is_refused(which: str, format: str) -> None:
    members = [Entry("d/x.txt"), Entry("main.py", b"1"), BAD_MEMBERS[which]]
    assert refused(tar(members, FORMATS[format])).field == "tar"


def test_nothing_is_written_through_a_symbolic_link() -> None:
    members = [Entry("main.py"), Entry("d", kind=tarfile.SYMTYPE, target="e"), Entry("d/x", b"1")]
    assert "through the symbolic link 'd'" in str(refused(tar(members)))


@pytest.mark.parametrize("members_max", [9_999, pytest.param(99_999, marks=pytest.mark.full)])
def test_more_members_than_allowed_are_too_many(members_max: int) -> None:
    limits = ArchiveLimits(bytes_max=10**9, members_max=members_max)
    block = tar([Entry("main.py")])[:BLOCK]
    checked = ArchiveCheck(limits=limits)

    def feed(number: int) -> None:
        member = bytearray(block)
        member[:12] = b"%08d.py\0" % number
        sign(member)
        checked.feed(member)

    for number in range(members_max):
        feed(number)
    with pytest.raises(InvalidRequest) as caught:
        feed(members_max)
    assert caught.value.code == "too_large"
    assert checked.members == members_max + 1


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


def test_a_name_without_a_key_is_refused() -> None:
    assert "malformed" in str(refused(pax({b"": b"x", b"path": b"good.py"})))


def test_a_character_set_that_is_not_ascii_is_refused() -> None:
    assert "character set" in str(refused(pax({b"hdrcharset": b"\xff"})))


def test_more_extended_headers_than_the_sandbox_can_read_are_refused() -> None:
    one = pax({b"comment": b"x"}, after=b"-")[:-1]
    assert check(one * 16 + tar([Entry("main.py")])) == "main.py"
    assert "extended headers" in str(refused(one * 17 + tar([Entry("main.py")])))


def test_the_last_of_two_records_with_one_key_counts() -> None:
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
