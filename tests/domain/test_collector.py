"""Test which files the collector sends, what it skips, and the reasons, on a directory of this machine."""

import functools
import json
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, evolve

from pyexec.domain.output_files import UNSAFE, SkipReason
from pyexec.guest import collector
from pyexec.guest.session_files import SessionCollection
from pyexec.sandbox.guest_source import source
from tests.domain.collecting import LIMITS, Clock, collect, put, work

__all__ = ["work"]


TREE = ("a.txt", ".top", "out/b.txt", "out/.hidden", "out/in/c.txt", "out/.in/d.txt", "other/out/e.txt")
OUT = {"out/b.txt", "out/.hidden", "out/in/c.txt", "out/.in/d.txt"}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("out", OUT),
        ("out/", OUT),
        ("./out//", OUT),
        ("/work/out", OUT),
        ("out/in", {"out/in/c.txt"}),
        ("o*/", OUT | {"other/out/e.txt"}),
        ("*/out", {"other/out/e.txt"}),
        ("**/out", OUT | {"other/out/e.txt"}),
        (".", set(TREE)),
        ("/work/", set(TREE)),
        ("**/", set(TREE)),
        ("out/**", {"out/b.txt", "out/in/c.txt"}),
        ("*", {"a.txt"}),
    ],
)
def test_a_pattern_that_names_a_directory_means_all_files_in_it(
    work: Path, pattern: str, wanted: set[str]
) -> None:
    put(work, *TREE)
    found = collect([pattern])
    assert found.files == {path: path.encode() for path in wanted}
    assert (found.paths, found.patterns, found.report["truncated"]) == ([], [], False)


def test_a_pattern_that_finds_no_file_is_reported(work: Path) -> None:
    put(work, *TREE)
    (work / "empty").mkdir()
    found = collect(["a.txt", "no", "*.csv", "empty", "a.txt/", "a.txt/x", "out*", "a.txt", "no"])
    assert set(found.files) == {"a.txt"}
    assert found.patterns == [(number, "no_match") for number in (1, 2, 3, 4, 5, 6, 8)]
    assert found.report["truncated"] is False


@pytest.mark.parametrize(
    "target",
    ["out/b.txt", "./out/in/../b.txt", "/work/out/b.txt", "/../work/./out//b.txt", "../work/out/b.txt"],
)
def test_a_link_to_a_file_inside_comes_under_its_own_name(work: Path, target: str) -> None:
    put(work, *TREE)
    (work / "last").symlink_to(target)
    (work / "out" / "first").symlink_to("../last")
    found = collect(["last", "out/first"])
    assert found.files == {"last": b"out/b.txt", "out/first": b"out/b.txt"}
    assert (found.paths, found.patterns) == ([], [])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/passwd", "link_outside"),
        ("/", "link_outside"),
        ("..", "link_outside"),
        ("../work/../x", "link_outside"),
        ("/workshop/x", "link_outside"),
        ("/proc/self/fd/0", "link_outside"),
        ("out/passwd", "link_outside"),
        ("nowhere", "link_broken"),
        ("out/no/../b.txt", "link_broken"),
        ("a.txt/../a.txt", "link_broken"),
        ("link", "link_broken"),
        ("out/back", "link_broken"),
    ],
)
def test_a_link_that_leads_elsewhere_is_skipped(work: Path, target: str, reason: str) -> None:
    put(work, *TREE)
    (work / "link").symlink_to(target)
    (work / "out" / "passwd").symlink_to("/etc/passwd")
    (work / "out" / "back").symlink_to("/work/link")
    for pattern in ("link", "l*", "link/x"):
        found = collect([pattern])
        assert (found.files, found.paths, found.patterns) == ({}, [("link", reason)], [])
        assert found.report["truncated"] is False
    assert collect(["**/nothing"]).paths == []  # no pattern names the link


def test_a_link_to_a_directory_inside_is_the_directory(work: Path) -> None:
    put(work, "runs/1/a.csv", "runs/2/b.csv")
    (work / "latest").symlink_to("runs/2")
    for pattern in ("latest", "latest/", "latest/*.csv", "l*/"):
        assert collect([pattern]).files == {"latest/b.csv": b"runs/2/b.csv"}
    assert set(collect(["**/*.csv"]).files) == {"runs/1/a.csv", "runs/2/b.csv", "latest/b.csv"}


def test_links_in_a_circle_end_the_walk_there(work: Path) -> None:
    put(work, "a/1", "b/2")
    (work / "a" / "up").symlink_to("..")
    (work / "a" / "to_b").symlink_to("../b")
    (work / "b" / "to_a").symlink_to("/work/a")
    found = collect(["a"])
    assert set(found.files) == {"a/1", "a/to_b/2"}
    assert found.paths == [("a/to_b/to_a", "link_loop"), ("a/up", "link_loop")]
    assert set(collect(["**/[12]"]).files) == {"a/1", "a/to_b/2", "b/2", "b/to_a/1"}


def test_links_that_double_the_paths_at_each_level_end_the_search(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "ENTRIES_MAX", 2000)
    for level in range(25):
        (work / str(level)).mkdir()
        for name in "xy":
            (work / str(level) / name).symlink_to(f"../{level + 1}")
    (work / "25").mkdir()
    found = collect(["0/**"])
    assert (found.files, found.patterns, found.report["truncated"]) == ({}, [(0, "too_many")], True)


def test_only_regular_files_are_sent(work: Path) -> None:
    os.mkfifo(work / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "socket"))
        (work / "way").symlink_to("fifo")
        found = collect(["*", "fifo"])
    assert (found.files, found.patterns) == ({}, [])
    assert found.paths == [("fifo", "not_a_file"), ("socket", "not_a_file"), ("way", "not_a_file")]
    assert found.report["truncated"] is False


def test_files_over_the_limits_are_reported(work: Path) -> None:
    put(work, "a", "b", "long/" + "x" * 60, "c")
    (work / "b").write_bytes(bytes(1000))
    found = collect(["*", "long", "gone"], evolve(LIMITS, names_bytes_max=60))
    assert set(found.files) == {"a", "c"}
    assert found.paths == [("b", "too_large"), ("long/" + "x" * 60, "too_many")]
    assert (found.patterns, found.report["truncated"]) == ([(2, "no_match")], True)


def test_the_patterns_that_lost_files_to_the_limit_are_named(work: Path) -> None:
    put(work, *(f"{number:02}" for number in range(9)), "x/y", "z")
    found = collect(["0[0-4]", "0*", "00", "x", "y", "[xz]", "[x]"], evolve(LIMITS, files_max=5))
    assert len(found.files) == 5
    assert found.patterns == [
        (1, "too_many"),
        (3, "too_many"),
        (4, "no_match"),
        (5, "too_many"),
        (6, "no_match"),
    ]
    assert found.report["truncated"] is True


def test_names_that_are_no_text_are_reported_as_text(work: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", b"\x1b[2J"):
        (work / os.fsdecode(name)).write_text("x")
    found = collect(["*"])
    assert found.files == {}
    assert sorted(found.paths) == [
        (name, "invalid_name") for name in ("new\ufffdline", "\ufffd[2J", "\ufffd\ufffd")
    ]
    deep = "/".join(["ü" * 100] * 6)
    put(work, deep)
    ((path, reason),) = collect(["ü*/"]).paths
    assert (reason, path[-1], len(path.encode())) == ("invalid_name", "…", 1024)
    assert deep.startswith(path[:-1])


def test_the_number_of_reports_is_bounded(work: Path) -> None:
    for number in range(50):
        (work / f"{number:02}{'x' * 100}").symlink_to("/")
    found = collect(["*"], evolve(LIMITS, skipped_max=10))
    assert (len(found.paths), found.report["skipped_truncated"]) == (10, True)
    found = collect(["*"], evolve(LIMITS, skipped_bytes_max=1020))
    assert (len(found.paths), found.report["skipped_truncated"]) == (10, True)
    found = collect(["*"])
    assert (len(found.paths), found.report["skipped_truncated"]) == (50, False)


def test_the_search_ends_after_two_seconds(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matching each name with 100 patterns takes a hundred times longer than reading the names."""
    put(work, *(f"file{number}" for number in range(300)))
    clock = Clock()

    def slow_select(*_: object) -> tuple[set[int], set[int], set[object]]:
        clock.now += 0.02
        return set(), set(), set()

    monkeypatch.setattr(collector, "select", slow_select)
    monkeypatch.setattr(collector, "time", clock)
    found = collect(["*.txt", "[a-z]"])
    assert found.patterns == [(0, "timeout"), (1, "timeout")]
    assert clock.now < 2.1


def test_the_contents_of_a_complete_list_are_not_cut_off(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server lists the files of a session, then reads them. The second search may be slower."""
    put(work, *(f"file{number}" for number in range(300)))
    clock, select = Clock(), collector.select

    def slow_select(*arguments: Any) -> Any:
        clock.now += 0.02
        return select(*arguments)

    monkeypatch.setattr(collector, "select", slow_select)
    monkeypatch.setattr(collector, "time", clock)
    limits = evolve(LIMITS, bytes_max=10_000, files_max=1000)
    request = {"patterns": ["*"], "unsafe": UNSAFE.pattern, **asdict(limits)}
    reports = []
    for only_names in (True, False):
        sent: list[bytes] = []
        keep = partial(keep_payload, sent)
        collector.collect({**request, "list": only_names}, keep, SessionCollection)
        reports.append(json.loads(sent[-1])["truncated"])
    assert reports == [True, False]


def keep_payload(sent: list[bytes], _: bytes, payload: bytes) -> None:
    sent.append(payload)


def test_the_time_for_sending_does_not_count_as_search(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(work, "a", "b", "c")
    clock = Clock()
    monkeypatch.setattr(collector, "time", clock)
    monkeypatch.setattr(collector.os, "read", clock.read_slowly)
    found = collect(["*"])
    assert (sorted(found.files), found.patterns) == (["a", "b", "c"], [])


def test_a_tree_that_is_too_deep_is_reported(work: Path) -> None:
    put(work, "d/" * 40 + "end")
    found = collect(["**/end"])
    assert (found.files, found.patterns) == ({}, [])
    assert found.paths == [("/".join("d" * 32), "too_deep")]
    assert found.report["truncated"] is True


def test_a_file_that_ends_early_ends_the_collection(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(work, "a", "b")
    monkeypatch.setattr(os, "read", lambda *_: b"")
    found = collect(["*"])
    assert found.files == {"a": b""}
    assert (found.patterns, found.report["truncated"]) == ([(0, "unreadable")], True)


def test_the_patterns_need_nothing_that_python_3_8_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(functools, "cache")
    scope: dict[str, Any] = {}
    exec(source("patterns"), scope)
    assert scope["matches"]("*.txt", "a.txt")


def test_the_collector_and_the_server_know_the_same_reasons() -> None:
    known = set(SkipReason) - {SkipReason.NOT_COLLECTED}
    assert {getattr(collector, reason.name) for reason in known} == known
    assert known >= collector.TRUNCATING_REASONS
