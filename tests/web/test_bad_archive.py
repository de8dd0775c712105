"""Test invalid archives: the 4xx response names the member, and nothing is left behind."""

import tarfile
from collections.abc import Callable, Iterator

import pytest

from tests.support.api import Api
from tests.support.archives import (
    END,
    compressed,
    many_members,
    member,
    pax,
    script,
    sparse,
    tar_of,
    with_checksum,
)
from tests.support.leftovers import remains
from tests.support.server import Server

GOOD = member("main.py", "print('hello')")
GIBIBYTE = 1024**3
ZIP = b"PK\x03\x04" + bytes(60)
NOT_UTF8 = "caf\udce9.py"

BAD_ARCHIVES: dict[str, tuple[bytes | Callable[[], bytes], int, str, str, tuple[str, ...]]] = {
    # bytes, status, code, field, words in the error message
    "gzip": (compressed("gz"), 415, "unsupported_archive", "tar", ("gzip", "uncompressed tar")),
    "bzip2": (compressed("bz2"), 415, "unsupported_archive", "tar", ("bzip2", "uncompressed tar")),
    "xz": (compressed("xz"), 415, "unsupported_archive", "tar", ("xz", "uncompressed tar")),
    "zip": (ZIP, 415, "unsupported_archive", "tar", ("zip", "uncompressed tar")),
    "text": (b"print('hello')\n" * 100, 400, "invalid_request", "tar", ("not a tar",)),
    "short text": (b"print('hello')\n", 400, "invalid_request", "tar", ("cut short",)),
    "no bytes": (b"", 400, "invalid_request", "tar", ("empty", "uncompressed tar")),
    "no members": (END, 400, "invalid_request", "tar", ("contains no files",)),
    "cut in a header": (GOOD[:300], 400, "invalid_request", "tar", ("cut short",)),
    "cut in a file": (member("main.py", b"#" * 5000)[:3000], 400, "invalid_request", "tar", ("cut short",)),
    "cut before its end": (GOOD, 400, "invalid_request", "tar", ("cut short",)),
    "damaged in the middle": (
        GOOD + b"\x01" * 512 + END,
        400,
        "invalid_request",
        "tar",
        ("damaged", "after 1 members"),
    ),
    "no .py": (tar_of({"a.txt": "x"}), 400, "invalid_request", "entrypoint", (".py", "main.py")),
    "absolute": (GOOD + member("/etc/x.py") + END, 400, "invalid_request", "tar", ("/etc/x.py", "absolute")),
    "dot dot": (GOOD + member("a/../../x.py") + END, 400, "invalid_request", "tar", ("a/../../x.py", "..")),
    "NUL in a pax name": (
        pax({b"path": b"ma\0in.py"}) + GOOD + END,
        400,
        "invalid_request",
        "tar",
        ("NUL character",),
    ),
    "5,000 characters": (
        GOOD + member("d/" * 2500 + "x") + END,
        400,
        "invalid_request",
        "tar",
        ("5001", "4095"),
    ),
    "one part of 300": (GOOD + member("x" * 300) + END, 400, "invalid_request", "tar", ("255",)),
    "not UTF-8": (
        GOOD + member(NOT_UTF8, style=tarfile.GNU_FORMAT) + END,
        400,
        "invalid_request",
        "tar",
        ("not UTF-8",),
    ),
    "no name": (pax({b"path": b""}) + GOOD + END, 400, "invalid_request", "tar", ("is empty",)),
    "symlink out": (
        GOOD + member("a/l", kind=tarfile.SYMTYPE, target="../../etc/passwd") + END,
        400,
        "invalid_request",
        "tar",
        ("symbolic link", "a/l", "points outside"),
    ),
    "absolute symlink": (
        GOOD + member("l", kind=tarfile.SYMTYPE, target="/etc/passwd") + END,
        400,
        "invalid_request",
        "tar",
        ("symbolic link", "points outside"),
    ),
    "file behind a symlink": (
        GOOD + member("l", kind=tarfile.SYMTYPE, target=".") + member("l/x") + END,
        400,
        "invalid_request",
        "tar",
        ("l/x", "behind the symbolic link"),
    ),
    "hard link out": (
        GOOD + member("h", kind=tarfile.LNKTYPE, target="../main.py") + END,
        400,
        "invalid_request",
        "tar",
        ("hard link", "points outside"),
    ),
    "hard link to nothing": (
        GOOD + member("h", kind=tarfile.LNKTYPE, target="nothing") + END,
        400,
        "invalid_request",
        "tar",
        ("hard link", "nothing"),
    ),
    "character device": (
        GOOD + member("d", kind=tarfile.CHRTYPE) + END,
        400,
        "invalid_request",
        "tar",
        ("device",),
    ),
    "block device": (
        GOOD + member("d", kind=tarfile.BLKTYPE) + END,
        400,
        "invalid_request",
        "tar",
        ("device",),
    ),
    "FIFO": (GOOD + member("f", kind=tarfile.FIFOTYPE) + END, 400, "invalid_request", "tar", ("FIFO", "f")),
    "unknown type": (GOOD + member("u", kind=b"Q") + END, 400, "invalid_request", "tar", ("unknown type",)),
    "a link where a file is": (
        GOOD + member("./main.py", kind=tarfile.SYMTYPE, target="x") + END,
        400,
        "invalid_request",
        "tar",
        ("main.py", "both a file"),
    ),
    "an invalid map of holes": (
        pax({b"GNU.sparse.map": b"x"}) + GOOD + END,
        400,
        "invalid_request",
        "tar",
        ("damaged", "not a number"),
    ),
    "a file where a folder is": (
        GOOD + member("d/x") + member("d") + END,
        400,
        "invalid_request",
        "tar",
        ("'d'", "directory"),
    ),
    "a folder where a file is": (
        GOOD + member("main.py/x") + END,
        400,
        "invalid_request",
        "tar",
        ("main.py/x",),
    ),
    "a folder named like a file": (
        GOOD + member("main.py", kind=tarfile.DIRTYPE) + END,
        400,
        "invalid_request",
        "tar",
        ("main.py", "both a file"),
    ),
    "10 GB, sparse": (
        GOOD + sparse("s", 10 * GIBIBYTE) + END,
        413,
        "too_large",
        "config.disk_mb",
        ("2048 MiB",),
    ),
    "10 GB, claimed": (
        GOOD + member("b", size=10 * GIBIBYTE),
        413,
        "too_large",
        "config.disk_mb",
        ("disk_mb", "2048 MiB"),
    ),
    "10 GB, by pax": (
        GOOD + pax({b"size": b"%d" % (10 * GIBIBYTE)}) + member("b"),
        413,
        "too_large",
        "config.disk_mb",
        ("2048 MiB",),
    ),
    "pax length of nonsense": (
        pax({b"path": b"main.py"}).replace(b"16 path", b"99 path") + GOOD + END,
        400,
        "invalid_request",
        "tar",
        ("damaged", "extended header"),
    ),
    "a pax header for all": (
        pax({b"path": b"../x.py"}, everywhere=True) + GOOD + END,
        400,
        "invalid_request",
        "tar",
        ("path",),
    ),
    "100,000 members": (
        lambda: GOOD + many_members(100_000) + END,  # 50 MB: made only by the worker that sends it
        413,
        "too_large",
        "tar",
        ("65536", "members"),
    ),
}


SLOW = "100,000 members"
BY_SUBMIT = ("gzip", "no bytes", "cut in a file", "dot dot", "10 GB, claimed", SLOW)
"""One of each kind; both routes check archives by the same code."""


def cases() -> Iterator[object]:
    """Yield every archive for one route, and one of each kind for the other; `make soak` runs all."""
    for name in BAD_ARCHIVES:
        routes = {"sync": name != SLOW, "submit": name in BY_SUBMIT}
        for route, always in routes.items():
            yield pytest.param(name, route, marks=[] if always else [pytest.mark.full], id=f"{name}-{route}")


@pytest.mark.parametrize(("name", "route"), list(cases()))
async def test_a_bad_archive_is_refused_and_leaves_nothing(
    narrow: Api, narrow_server: Server, route: str, name: str
) -> None:
    archive, status, code, field, words = BAD_ARCHIVES[name]
    before = await remains(narrow_server, narrow)
    answer = await getattr(narrow, route)(archive() if callable(archive) else archive, {})
    assert (answer.status, answer.document["code"]) == (status, code), answer.document
    assert answer.document["field"] == field
    for word in words:
        assert word in answer.document["error"]
    assert len(answer.document["error"]) < 500
    assert await remains(narrow_server, narrow) == before


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [("pkg", "is a directory"), ("pkg/", "is a directory"), ("nowhere.py", "not in the archive")],
)
async def test_an_entrypoint_must_be_a_file_of_the_archive(narrow: Api, entrypoint: str, words: str) -> None:
    archive = tar_of({"pkg/__init__.py": "", "main.py": ""})
    answer = await narrow.sync(archive, {"entrypoint": entrypoint})
    assert (answer.status, answer.document["field"]) == (400, "entrypoint")
    assert words in answer.document["error"]


async def test_contents_that_do_not_fit_in_disk_mb_are_too_large(narrow: Api, narrow_server: Server) -> None:
    before = await remains(narrow_server, narrow)
    archive = tar_of({"main.py": "", "big": bytes(5 * 1024 * 1024)})
    answer = await narrow.sync(archive, {"config": {"disk_mb": 4}})
    assert (answer.status, answer.document["code"]) == (413, "too_large")
    assert (answer.document["field"], "4 MiB" in answer.document["error"]) == ("config.disk_mb", True)
    assert await remains(narrow_server, narrow) == before


@pytest.mark.parametrize(
    ("files", "entrypoint"),
    [
        (["b.py", "main.py", "__main__.py"], "main.py"),
        (["b.py", "__main__.py", "pkg/main.py"], "__main__.py"),
        (["pkg/main.py", "b.py", "a.py"], "b.py"),
        (["x.txt", "pkg/b.py", "pkg/a.py"], "pkg/b.py"),
        (["._app.py", "app.py"], "app.py"),
        (["proj/conf.py", "proj/main.py"], "proj/main.py"),
        (["test_x.py"], "test_x.py"),
    ],
)
async def test_the_entrypoint_is_detected(api: Api, files: list[str], entrypoint: str) -> None:
    archive = tar_of(dict.fromkeys(files, "import sys; print(sys.argv[0])"))
    answer = await api.sync(archive)
    assert (answer.status, answer.document["stdout"]) == (200, f"{entrypoint}\n")
    assert answer.document["entrypoint"] == entrypoint


async def test_an_entrypoint_that_is_a_link(api: Api) -> None:
    link = member("main.py", kind=tarfile.SYMTYPE, target="src/app.py")
    answer = await api.sync(member("a.py") + link + tar_of({"src/app.py": "print('app')"}))
    assert (answer.document["stdout"], answer.document["entrypoint"]) == ("app\n", "main.py")


ATTRIBUTES = """
import os, sys, time, zipfile
print(open('later').read(), oct(os.stat('main.py').st_mode & 0o700), os.access('/work', os.W_OK))
print(abs(time.time() - os.stat('main.py').st_mtime) < 3600)
zipfile.ZipFile('x.zip', 'w').write('main.py')
"""


@pytest.mark.parametrize("route", ["sync", "submit"])
@pytest.mark.parametrize("mtime", [b"nan", b"inf", b"-1", b"9" * 30, b"0"])
async def test_unusual_attributes_are_corrected(api: Api, route: str, mtime: bytes) -> None:
    info = tarfile.TarInfo("./")
    info.type, info.mode = tarfile.DIRTYPE, 0o555
    archive = info.tobuf() + member("later", "first") + pax({b"mtime": mtime}, everywhere=True)
    archive += member("main.py", ATTRIBUTES, mode=0) + member("later", "last") + END
    answer = await getattr(api, route)(archive)
    result = await api.ended(answer.document["execution_id"])
    now = mtime not in (b"inf", b"9" * 30)
    assert (result["stdout"], result["stderr"]) == (f"last 0o600 True\n{now}\n", "")


async def test_an_out_of_range_mode_is_corrected(api: Api) -> None:
    data = bytearray(member("main.py", "print('ran')"))
    data[100:108] = b"\x80\0" + (2**40).to_bytes(6, "big")
    answer = await api.sync(with_checksum(data[: tarfile.BLOCKSIZE]) + data[tarfile.BLOCKSIZE :] + END)
    assert (answer.status, answer.document["stdout"]) == (200, "ran\n")


async def test_an_archive_that_only_the_sandbox_refuses_is_a_client_error(api: Api) -> None:
    no_map = pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}) + GOOD
    answer = await api.sync(no_map + END)
    assert (answer.status, answer.document["field"]) == (400, "tar")
    answer = await api.submit(no_map + END)
    if answer.status == 202:
        result = await api.ended(answer.document["execution_id"])
        assert (result["status"], result["error_type"]) == ("failed", "setup_failed")
        assert "cannot be unpacked" in result["error"]
    else:
        assert (answer.status, answer.document["field"]) == (400, "tar")


async def test_links_that_stay_inside_are_taken(api: Api) -> None:
    archive = (
        member("data/a.txt", "inside")
        + member("link", kind=tarfile.SYMTYPE, target="data/a.txt")
        + member("hard", kind=tarfile.LNKTYPE, target="data/a.txt")
        + member("main.py", "print(open('link').read(), open('hard').read())")
        + END
    )
    answer = await api.sync(archive)
    assert (answer.status, answer.document["stdout"]) == (200, "inside inside\n")


async def test_bytes_after_the_end_of_the_archive_do_no_harm(api: Api) -> None:
    answer = await api.sync(script("print('whole')") + bytes(100_000))
    assert (answer.status, answer.document["stdout"]) == (200, "whole\n")
