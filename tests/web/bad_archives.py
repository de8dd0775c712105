"""Invalid archives, and the responses to them."""

import tarfile
from collections.abc import Callable

from tests.support.archives import (
    END,
    compressed,
    many_members,
    member,
    pax,
    sparse,
    tar_of,
)

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
        ("l/x", "through the symbolic link"),
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
