import io
import os
import socket
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec_client import tar

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300)


def opened(members) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(tar.write(members))))


@given(st.dictionaries(names, st.binary(max_size=2000)))
def test_files_round_trip(files):
    with opened(tar.member(name, content) for name, content in files.items()) as archive:
        headers = archive.getmembers()
        got = {header.name: archive.extractfile(header).read() for header in headers}
    assert got == {name.rstrip("/"): content for name, content in files.items()}
    assert all(header.isreg() and header.mode == 0o644 for header in headers)


def test_equal_sources_give_equal_archives():
    first, second = (b"".join(tar.write([tar.member("main.py", "print('ü')")])) for _ in range(2))
    assert first == second


def test_a_directory_is_sorted_and_keeps_modes_and_links(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tool").write_text("#!/bin/sh")
    (tmp_path / "b" / "tool").chmod(0o700)
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("a.py")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    with opened(tar.directory_members(tmp_path)) as archive:
        headers = archive.getmembers()
    assert [header.name for header in headers] == ["a.py", "b", "b/tool", "empty", "link"]
    assert [header.mode for header in headers[:3]] == [0o644, 0o755, 0o755]
    assert headers[3].isdir()
    assert headers[4].linkname == "a.py"
    assert {(header.uid, header.uname) for header in headers} == {(0, "")}


def test_the_scripts_at_the_root_of_a_directory_come_first(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("main.py", "a/b.py", "data.csv", "app.py"):
        (tmp_path / name).write_text("")
    with opened(tar.directory_members(tmp_path)) as archive:
        assert archive.getnames() == ["app.py", "main.py", "a", "a/b.py", "data.csv"]


def test_a_directory_without_files_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="the directory is empty"):
        list(tar.directory_members(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    with pytest.raises(ValueError, match="every file is ignored"):
        list(tar.directory_members(tmp_path))


def test_ignore_rules_apply_at_any_depth(tmp_path):
    for name in (
        "main.py",
        "sub/x.py",
        "sub/node_modules/a.js",
        ".git/HEAD",
        "__pycache__/x.pyc",
        "secret/key",
        "x.log",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("secret\n*.log\n")
    sent = {member.header.name for member in tar.directory_members(tmp_path)}
    assert sent == {".dockerignore", "main.py", "sub", "sub/x.py"}


def test_a_file_name_that_is_not_utf8_is_sent_unchanged(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("1")
    whole = b"".join(tar.write(tar.directory_members(tmp_path)))
    assert b"\xff.py" in whole


def test_chunks_of_a_large_file_are_small(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(20 * tar.CHUNK_BYTES + 1)
    pieces = list(tar.write(tar.directory_members(tmp_path)))
    assert max(map(len, pieces)) <= 2 * tar.CHUNK_BYTES
    assert sum(map(len, pieces)) % tarfile.BLOCKSIZE == 0


def test_a_file_that_grows_is_sent_with_its_old_size(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"before")
    member = tar.member("log", path)
    path.write_bytes(b"before and after")
    with opened([member, tar.member("next", "x")]) as archive:
        assert archive.extractfile("log").read() == b"before"
        assert archive.extractfile("next").read() == b"x"


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"before")
    member = tar.member("log", path)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="log became shorter"):
        list(tar.write([member]))


def test_an_open_file_is_sent_from_its_start():
    member = tar.member("main.py", io.BytesIO(b"print(1)"))
    for _ in range(2):
        with opened([member]) as archive:
            assert archive.extractfile("main.py").read() == b"print(1)"
