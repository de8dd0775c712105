"""Measure the files of a sandbox's program. Part of the supervisor (see bootstrap.py)."""

import os

from pyexec.guest.wire import TMP, WORK

PAGE_BYTES = 4096
TOLERANCE = 1024 * 1024
"""Bytes by which /work and /tmp together may exceed their limit: a program that has filled one of them gets ENOSPC, and
a few small files in the other do not end it."""


def disk_bytes_used():
    """Return the bytes used by the files in /work and /tmp together. A file counts as at least one page, because empty
    files use memory of the kernel, too."""
    work, tmp = os.statvfs(WORK), os.statvfs(TMP)
    files = work.f_files - work.f_ffree + tmp.f_files - tmp.f_ffree
    return max(tmpfs_bytes(work) + tmpfs_bytes(tmp), files * PAGE_BYTES)


def file_content_bytes():
    """Return the bytes of file content in /work and /tmp together."""
    return tmpfs_bytes(os.statvfs(WORK)) + tmpfs_bytes(os.statvfs(TMP))


def tmpfs_bytes(info):
    """Return the used bytes of a tmpfs, given its `statvfs`."""
    return (info.f_blocks - info.f_bfree) * info.f_frsize
