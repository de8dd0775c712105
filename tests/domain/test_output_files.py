"""Test the patterns of output files, and the check of the files that a sandbox sends."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.output_files import FileCheck, FileLimits, OutputFile, SkipReason, normalize_patterns
from pyexec.domain.spec import Limits, Metadata, Policy, resolve
from pyexec.errors import InvalidRequest, SandboxBroken

LIMITS = FileLimits(
    bytes_max=100, files_max=3, names_bytes_max=40, path_bytes_max=30, skipped_max=3, skipped_bytes_max=40
)


@pytest.mark.parametrize(
    ("pattern", "normal"),
    [
        ("a.txt", "a.txt"),
        ("/work/a.txt", "a.txt"),
        ("//work/a.txt", "a.txt"),
        ("/./work//out/*.png", "out/*.png"),
        ("./out//./*.png", "out/*.png"),
        ("**", "**/*"),
        ("/work/**", "**/*"),
        ("out/**", "out/**/*"),
        ("**/**/a", "**/a"),
        ("-rf", "-rf"),
        ("work/a", "work/a"),
        ("[ab]?.c", "[ab]?.c"),
        ("ü/名.txt", "ü/名.txt"),
        ("a..b", "a..b"),
        ("out", "out"),
        ("out/", "out/"),
        ("/work/./out//", "out/"),
        ("**/", "**/"),
        (".", ""),
        ("./", ""),
        ("/work", ""),
        ("/work/", ""),
    ],
)
def test_a_pattern_is_relative_to_work(pattern: str, normal: str) -> None:
    assert normalize_patterns([pattern]) == (normal,)


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "//", "..", "../x", "a/../b", "a/..", "/work/../etc/passwd",
     "/etc/passwd", "/workshop/x", "/work/..", "a\0b", "x" * 1025, "x" * 256],
)  # fmt: skip
def test_an_invalid_pattern_is_refused_with_its_index(pattern: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        normalize_patterns(["good", pattern])
    assert refused.value.field == "output_files[1]"


def test_the_number_of_patterns_is_limited() -> None:
    assert len(normalize_patterns(["a"] * 100)) == 100
    with pytest.raises(InvalidRequest, match="101 patterns"):
        normalize_patterns(["a"] * 101)


def test_patterns_are_part_of_the_spec() -> None:
    limits = Limits(timeout_seconds=1, network_disabled=True, memory_mb=64, disk_mb=64, cpu_shares=2)
    policy = Policy(default_image="image", defaults=limits, ceilings=limits)
    assert resolve(Metadata(output_files=("/work/a", "b/**")), policy).output_files == ("/work/a", "b/**")
    with pytest.raises(InvalidRequest):
        resolve(Metadata(output_files=("../a",)), policy)


def test_stored_patterns_of_earlier_versions_mean_the_same() -> None:
    patterns = ("a.txt", "**/*", "out/**/*", "**/a", "[ab]?.c")
    assert normalize_patterns(patterns) == patterns


def test_files_that_come_as_announced_are_kept() -> None:
    check = FileCheck(LIMITS)
    check.begin("a/b", 3)
    check.feed(b"12")
    assert check.complete() == ()
    check.feed(b"3")
    check.begin("a/c", 0)
    assert check.complete() == (OutputFile(path="a/b", size=3), OutputFile(path="a/c", size=0))


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc/passwd", "/work/a", "../a", "a/../b", "a/..", "./a", "a//b", "a/", "a\nb", "a\0", "\x1b[2J",
     "a\x7f", "\u2028", "\ud800", "x" * 31, "ü" * 16],
)  # fmt: skip
def test_an_unsafe_path_is_a_broken_sandbox(path: str) -> None:
    with pytest.raises(SandboxBroken):
        FileCheck(LIMITS).begin(path, 0)


@pytest.mark.parametrize(
    "claims",
    [
        [("a", 0), ("a", 0)],
        [("a", 0), ("a/b", 0)],
        [("a/b", 0), ("a", 0)],
        [("a", 1), ("b", 0)],
        [("a", 101)],
        [("a", 0), ("b", 0), ("c", 0), ("d", 0)],
        [("a" * 21, 0), ("b" * 21, 0)],
    ],
)
def test_inconsistent_files_are_a_broken_sandbox(claims: list[tuple[str, int]]) -> None:
    check = FileCheck(LIMITS)
    for path, size in claims[:-1]:
        check.begin(path, size)
    with pytest.raises(SandboxBroken):
        check.begin(*claims[-1])


def test_skipped_paths_are_kept() -> None:
    check = FileCheck(LIMITS)
    check.begin("a", 1)
    check.feed(b"1")
    check.skip("a/link", SkipReason.LINK_OUTSIDE)
    check.skip("ü…", SkipReason.INVALID_NAME)
    assert [(each.path, each.reason) for each in check.skipped] == [
        ("a/link", "link_outside"),
        ("ü…", "invalid_name"),
    ]
    assert check.complete() == (OutputFile(path="a", size=1),)


@pytest.mark.parametrize(
    "paths", [[""], ["/etc/passwd"], ["a\x1b[2J"], ["x" * 31], ["a"] * 4, ["x" * 21, "x" * 20], ["\ud800"]]
)
def test_skipped_paths_that_must_not_be_given_on_are_a_lie(paths: list[str]) -> None:
    check = FileCheck(LIMITS)
    for path in paths[:-1]:
        check.skip(path, SkipReason.TOO_LARGE)
    with pytest.raises(SandboxBroken):
        check.skip(paths[-1], SkipReason.TOO_LARGE)


def test_no_path_is_skipped_within_a_file() -> None:
    check = FileCheck(LIMITS)
    check.begin("a", 1)
    with pytest.raises(SandboxBroken):
        check.skip("b", SkipReason.TOO_LARGE)


def test_more_bytes_than_announced_are_a_broken_sandbox() -> None:
    check = FileCheck(LIMITS)
    check.begin("a", 2)
    with pytest.raises(SandboxBroken):
        check.feed(b"123")


names = st.text(st.sampled_from("ab./\n\0ü-\u2028") | st.sampled_from(string.ascii_lowercase), max_size=12)


@given(st.lists(st.tuples(names, st.integers(0, 120)) | st.binary(max_size=60), max_size=12))
def test_kept_files_always_respect_the_limits(claims: list[tuple[str, int] | bytes]) -> None:
    check, came = FileCheck(LIMITS), 0
    try:
        for claim in claims:
            if isinstance(claim, bytes):
                came += len(claim)
                check.feed(claim)
            else:
                check.begin(*claim)
    except SandboxBroken:
        return  # the run has no files then
    kept = check.complete()
    paths = [file.path for file in kept]
    assert len(set(paths)) == len(paths) <= LIMITS.files_max
    assert sum(file.size for file in kept) <= min(came, LIMITS.bytes_max)
    for path in paths:
        assert not set(path) & set("\0\n\u2028")
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert not any(other.startswith(f"{path}/") for other in paths)
