"""Test how the supervisor shows what a setup left in its home, with every kind of list and files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyexec.guest import home, setup_init
from pyexec.guest.home import is_safe, link_setup_home


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The home of the program, the home of the setup, and the list."""
    for name in ("work", "root"):
        (tmp_path / name).mkdir()
    return tmp_path / "work", tmp_path / "root", tmp_path / "home.json"


def link(folders: tuple[Path, Path, Path], paths: Any) -> list[str]:
    """Link these paths, and return everything that is in the program's home."""
    work, root, listed = folders
    listed.write_text(paths if isinstance(paths, str) else json.dumps(paths))
    link_setup_home(str(work), str(root), str(listed))
    return sorted(str(path.relative_to(work)) for path in work.rglob("*"))


def test_both_sides_know_the_same_paths() -> None:
    assert (home.SETUP_HOME, home.SETUP_LIST) == (setup_init.HOME, setup_init.SETUP_LIST)


def test_directories_are_new_and_files_are_links(folders: tuple[Path, Path, Path]) -> None:
    work, root, _ = folders
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/c").write_text("text")
    (root / "a/up").symlink_to("b")
    assert link(folders, ["a"]) == ["a", "a/b", "a/b/c", "a/up"]
    assert (work / "a/b/c").readlink() == root / "a/b/c"
    assert not (work / "a").is_symlink()
    assert (work / "a/up/c").read_text() == "text"


def test_a_link_of_the_archive_is_not_entered(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    work, root, _ = folders
    (tmp_path / "elsewhere").mkdir()
    (root / "a").mkdir()
    (root / "a/b").write_text("text")
    for name in ("a", "c"):
        (work / name).symlink_to(tmp_path / "elsewhere")
    link(folders, ["a", "a/b", "c/d"])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_with_too_many_entries_becomes_a_link(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, root, _ = folders
    monkeypatch.setattr(home, "ENTRIES_MAX", 10)
    for name, count in {"many": 9, "few": 4}.items():
        (root / name).mkdir()
        for number in range(count):
            (root / name / str(number)).touch()
    link(folders, ["few", "many"])
    assert (work / "many").is_symlink()
    assert not (work / "few").is_symlink()
    assert len(list((work / "many").iterdir())) == 9


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "1", "null", "[1, null, [], {}]", "[" * 100_000, '"a"', "\0" * 100, '["\\udfff"]']
    + [
        json.dumps([path]) for path in ("", "/", "/etc", "..", "../a", "a/../../b", "a\0b", ".", "a//b", "a/")
    ],
)
def test_an_invalid_list_links_nothing(folders: tuple[Path, Path, Path], text: str) -> None:
    assert link(folders, text) == []


def test_a_list_that_is_no_regular_file_is_ignored(folders: tuple[Path, Path, Path]) -> None:
    work, root, listed = folders
    os.mkfifo(listed)
    link_setup_home(str(work), str(root), str(listed))
    listed.unlink()
    listed.symlink_to("/dev/zero")
    link_setup_home(str(work), str(root), str(listed))
    assert list(work.iterdir()) == []


def test_names_that_look_dangerous_are_allowed() -> None:
    assert all(is_safe(path) for path in ("..a", "...", "a/..b", "-rf", "a b", "ü\n"))


def test_only_what_the_setup_left_is_published(tmp_path: Path) -> None:
    """Times of files are compared, so this test sets the start to the time of a file."""
    (tmp_path / "image/shared").mkdir(parents=True)
    (tmp_path / "image/old").touch()
    (tmp_path / "image/shared/old").touch()
    since = max(path.stat().st_ctime for path in tmp_path.rglob("*")) + 0.001
    while (tmp_path / "image/new").touch() or (tmp_path / "image/new").stat().st_ctime < since:
        (tmp_path / "image/new").unlink()
    (tmp_path / "image/shared/new").touch(0o600)
    (tmp_path / "whole/.cache/uv").mkdir(parents=True)
    (tmp_path / "whole/file").touch(0o600)
    (tmp_path / ".cache/uv").mkdir(parents=True)
    (tmp_path / ".cache/uv/x").touch()
    (tmp_path / ".cache/kept").touch()
    found = setup_init.make_readable(str(tmp_path), since)
    assert sorted(found) == [".cache/kept", "image/new", "image/shared/new", "whole"]
    assert (tmp_path / "whole/file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "image/shared/new").stat().st_mode & 0o777 == 0o644
