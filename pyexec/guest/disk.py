"""Measure the files of a sandbox's program. Part of the supervisor (see bootstrap.py)."""

import os
import re

from pyexec.guest.wire import TMP, WORK

PAGE_BYTES = 4096
TOLERANCE = 1024 * 1024
"""Bytes by which all directories together may exceed their limit: a program that has filled one of them gets ENOSPC,
and a few small files in another do not end it."""
NOT_COUNTED = ("/dev/shm", "/dev/mqueue")
"""Writable file systems that count as memory of the program."""


def writable_directories(mounts="/proc/self/mounts"):
    """Return the directories in which the program can store files: /work, /tmp, and those that the image declares as
    volumes. Each is a tmpfs."""
    found = [WORK, TMP]
    with open(mounts, "rb") as file:
        for line in file:
            _, path, kind = line.split()[:3]
            path = mount_path(path)
            if kind == b"tmpfs" and path not in (*found, *NOT_COUNTED) and is_writable_directory(path):
                found.append(path)
    return found


def mount_path(field):
    """Return the path in a field of /proc/self/mounts or mountinfo, where spaces and some others are octal numbers."""
    return os.fsdecode(re.sub(rb"\\(\d{3})", lambda match: bytes([int(match[1], 8)]), field))


def is_writable_directory(path):
    """Return True for a directory in which this user can create files. Masked files are mounts of /dev/null."""
    return os.path.isdir(path) and os.access(path, os.W_OK)


DIRECTORIES = writable_directories()


def disk_bytes_used():
    """Return the bytes used by all files together. A file counts as at least one page, because empty files use memory
    of the kernel, too."""
    file_systems = [os.statvfs(directory) for directory in DIRECTORIES]
    files = sum(info.f_files - info.f_ffree for info in file_systems)
    return max(sum(map(tmpfs_bytes, file_systems)), files * PAGE_BYTES)


def file_content_bytes():
    """Return the bytes of file content in all directories together."""
    return sum(tmpfs_bytes(os.statvfs(directory)) for directory in DIRECTORIES)


def tmpfs_bytes(info):
    """Return the used bytes of a tmpfs, given its `statvfs`."""
    return (info.f_blocks - info.f_bfree) * info.f_frsize
