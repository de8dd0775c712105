"""Test the parts of the measurement of a setup's disk space that need no container."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyexec.guest import setup_disk

GIB = 1 << 30


def test_signals_are_sent_only_inside_a_container() -> None:
    with pytest.raises(RuntimeError, match="not the first process"):
        setup_disk.send_to_all(0)


@pytest.mark.parametrize(
    ("size", "free", "inodes", "free_inodes", "full"),
    [
        (100 * GIB, 2 * GIB, 1000, 500, False),
        (100 * GIB, GIB // 2, 1000, 500, True),
        (4 * GIB, GIB // 2, 1000, 500, False),
        (4 * GIB, GIB // 8, 1000, 500, True),
        (100 * GIB, 50 * GIB, 1000, 10, True),
        (100 * GIB, 50 * GIB, 0, 0, False),
    ],
)
def test_an_engine_is_full_before_its_last_block_and_inode(
    monkeypatch: pytest.MonkeyPatch, size: int, free: int, inodes: int, free_inodes: int, full: bool
) -> None:
    info = SimpleNamespace(
        f_blocks=size // 4096,
        f_bavail=free // 4096,
        f_frsize=4096,
        f_files=inodes,
        f_favail=free_inodes,
    )
    monkeypatch.setattr(os, "statvfs", lambda _: info)
    assert setup_disk.is_engine_full() is full


def test_only_new_files_count_and_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10_000))
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    (tmp_path / "empty").touch()
    os.setxattr(tmp_path / "empty", "user.a", bytes(100))
    for since, size in ((0, 12_288 + 4096 + len("user.a") + 100), (2**40, 0)):
        found = setup_disk.Measurement(limit=GIB, since=since, memory=set())
        for path in sorted(tmp_path.iterdir()):
            found.add(str(path), path.stat())
        assert found.total == size


def test_shared_memory_uses_no_disk() -> None:
    descriptor = os.memfd_create("memory")
    try:
        assert os.fstat(descriptor).st_dev in setup_disk.memory_devices()
    finally:
        os.close(descriptor)
    assert os.stat("/proc").st_dev in setup_disk.memory_devices()
    assert os.stat("/").st_dev not in setup_disk.memory_devices()
