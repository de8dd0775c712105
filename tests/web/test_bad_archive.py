"""Test invalid archives: the 4xx response names the member, and nothing is left behind."""

import tarfile
from collections.abc import Iterator

import pytest

from tests.support.api import Api
from tests.support.archives import (
    END,
    member,
    pax,
    script,
    tar_of,
    with_checksum,
)
from tests.support.leftovers import remains
from tests.support.server import Server
from tests.web.bad_archives import BAD_ARCHIVES, GOOD

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
