"""Test that the size, the depth and the repetition of input are bounded, whatever a caller sends."""

import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from attrs import evolve

from pyexec.domain.archive import DEPTH_MAX, ArchiveCheck
from pyexec.domain.output_files import normalize_patterns
from pyexec.domain.requirement_lines import LINE_LENGTH_MAX
from pyexec.domain.requirements import (
    LINES_MAX,
    SPECIFIERS_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    parse_requirements,
)
from pyexec.domain.spec import EvalRequest, Metadata, resolve
from pyexec.errors import InvalidRequest
from pyexec.web.request_parser import parse_request
from pyexec.web.sse import parse_position
from tests.domain.tars import LARGE_LIMITS, Entry, check_archive, pax, refused, sign, tar
from tests.domain.test_spec import POLICY

MEBIBYTE = 1024 * 1024


def deep_archive(members: int, depth: int) -> bytes:
    """Return an archive of `members` files, each in its own directories, with headers of 512 bytes."""
    template = tarfile.TarInfo("main.py")
    blocks = []
    for number in range(members):
        path = f"{number:x}" + "/a" * (depth - 1)
        header = bytearray(template.tobuf(tarfile.USTAR_FORMAT))
        prefix, name = path[:150].rstrip("/"), path[150:].strip("/")
        file = f"{name}/f" if name else "f"
        header[:100] = file.encode().ljust(100, b"\0")
        header[345:500] = prefix.encode().ljust(155, b"\0")
        sign(header)
        blocks.append(bytes(header))
    return b"".join(blocks) + bytes(1024)


def test_directories_cost_a_bounded_amount_of_memory() -> None:
    data = deep_archive(4000, 120)
    assert len(data) < 2 * MEBIBYTE
    checked = ArchiveCheck(limits=LARGE_LIMITS)
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="more than 65536 directories"):
        checked.feed(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * MEBIBYTE


def test_the_depth_of_a_member_is_bounded() -> None:
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        check_archive(tar([Entry("a/" * DEPTH_MAX + "main.py")], style))
        error = refused(tar([Entry("a/" * (DEPTH_MAX + 1) + "main.py")], style))
        assert error.field == "tar"
        assert f"more than {DEPTH_MAX} directories" in str(error)


@pytest.mark.parametrize("text", ["x; " + "(" * (LINE_LENGTH_MAX - 9), "x==" + "1" * (LINE_LENGTH_MAX - 9)])
def test_a_requirement_that_breaks_a_parser_is_accepted_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        parse_requirements(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" " * (TEXT_LENGTH_MAX + 1), f"at most {TEXT_LENGTH_MAX}"),
        ("x\n" * (LINES_MAX + 1), f"more than {LINES_MAX}"),
        ("x" * (LINE_LENGTH_MAX + 1), f"longer than {LINE_LENGTH_MAX}"),
        (f"x[{'a,' * 2000}b]\n" * 100, f"more than {SPECIFIERS_LENGTH_MAX}"),
        ("--pre " * LINE_LENGTH_MAX, f"longer than {LINE_LENGTH_MAX}"),
    ],
)
def test_the_size_of_requirements_is_bounded(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_requirements(text)


LONG = "q" * 3000


@pytest.mark.parametrize(
    "parse",
    [
        lambda: resolve(Metadata(env_vars=(LONG,)), POLICY),
        lambda: resolve(Metadata(entrypoint=f"../{LONG}"), POLICY),
        lambda: resolve(Metadata(entrypoint=f"{LONG}/"), POLICY),
        lambda: resolve(Metadata(docker_image="q" * 500), evolve(POLICY, allowed_images=("x",))),
        lambda: normalize_patterns([f"/{LONG[:900]}"]),
        lambda: normalize_patterns([f"{LONG[:900]}/"]),
        lambda: normalize_patterns([f"../{LONG[:900]}"]),
        lambda: normalize_patterns([LONG + "\0"]),
        lambda: parse_requirements(f"--{LONG}"),
        lambda: parse_requirements(f"-i {LONG} x"),
        lambda: parse_requirements(f"six {LONG}"),
        lambda: parse_requirements(f"six; {LONG}"),
        lambda: parse_requirements(f"six=={LONG}"),
        lambda: parse_requirements(f"six --hash={LONG}"),
        lambda: parse_request({LONG: 1}, EvalRequest, what="body"),
        lambda: parse_position(LONG),
        lambda: check_archive(tar([Entry(f"/{LONG}")])),
        lambda: check_archive(tar([Entry(f"../{LONG}")])),
        lambda: check_archive(tar([Entry(LONG)])),
        lambda: check_archive(tar([Entry("s", kind=tarfile.SYMTYPE, target=f"../{LONG}")])),
        lambda: check_archive(tar([Entry("h", kind=tarfile.LNKTYPE, target=LONG)])),
        lambda: check_archive(pax({f"GNU.sparse.{LONG}".encode(): b"1"}, tarfile.XGLTYPE)),
    ],
)
def test_an_error_repeats_at_most_100_characters_of_the_input(parse: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse()
    assert "q" * 101 not in str(caught.value)
    assert str(caught.value).count("q") < 220
    assert (caught.value.field or "").count("q") <= 100
