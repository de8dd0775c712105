"""Download the Swagger UI that the server ships: `python3 dev/swagger_ui.py` writes the files of the pinned release.

The files are committed: run this, with npm installed, only to change the release."""

from __future__ import annotations

import gzip
import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path

from console import SetupError, print_step, run_main
from subprocesses import ROOT, prepare, run

_RELEASE = "5.35.0"
_SHA256 = "1b8e891893404ea4c3558b6a87e2a3e494e7eedba41168c2ece5800a391a6ea6"
_FOLDER = ROOT / "pyexec" / "web" / "swagger"
_COMPRESSED = ("swagger-ui-bundle.js", "swagger-ui.css")
"""Stored and served as gzip, at a quarter of the size."""
_COPIED = ("favicon-32x32.png", "LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")


def main() -> int:
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        package = _download(Path(folder))
        with tarfile.open(package) as tar:
            for name in _COPIED:
                (_FOLDER / name).write_bytes(_member(tar, name))
            for name in _COMPRESSED:
                (_FOLDER / f"{name}.gz").write_bytes(gzip.compress(_member(tar, name), 9, mtime=0))
    print_step(f"Wrote Swagger UI {_RELEASE} to {_FOLDER.relative_to(ROOT)}")
    return 0


def _download(folder: Path) -> Path:
    """Download the release's package and verify its checksum."""
    package = f"swagger-ui-dist@{_RELEASE}"
    run(["npm", "pack", package, "--pack-destination", str(folder)], "download Swagger UI")
    (archive,) = folder.iterdir()
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != _SHA256:
        raise SetupError(f"Checksum mismatch of {package}: the SHA-256 is {found}; expected {_SHA256}.")
    return archive


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"package/{name}")
    if file is None:
        raise SetupError(f"Swagger UI {_RELEASE} has no file {name}.")
    return file.read()


if __name__ == "__main__":
    sys.exit(run_main(main))
