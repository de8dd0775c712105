"""Download a pinned package from npm, and read its files."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from console import SetupError
from subprocesses import run


class Package:
    """The files of a downloaded package."""

    def __init__(self, name: str, tar: tarfile.TarFile) -> None:
        self._name = name
        self._tar = tar

    def read(self, path: str) -> bytes:
        """Return the contents of a file."""
        try:
            file = self._tar.extractfile(f"package/{path}")
        except KeyError:
            file = None
        if file is None:
            raise SetupError(f"{self._name} has no file {path}.")
        return file.read()


@contextmanager
def package(name: str, release: str, sha256: str) -> Iterator[Package]:
    """Download a release and verify its checksum."""
    pinned = f"{name}@{release}"
    with tempfile.TemporaryDirectory() as folder:
        run(["npm", "pack", pinned, "--pack-destination", folder], f"download {pinned}")
        (archive,) = Path(folder).iterdir()
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != sha256:
            raise SetupError(f"Checksum mismatch of {pinned}: the SHA-256 is {found}; expected {sha256}.")
        with tarfile.open(archive) as tar:
            yield Package(pinned, tar)
