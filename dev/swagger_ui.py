"""The Swagger UI that the server ships: `python3 dev/swagger_ui.py` puts the pinned release's files into the package.

They are committed, so only who changes the release needs npm and this."""

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
_SERVED = ("swagger-ui-bundle.js", "swagger-ui.css")
"""Kept as gzip, a quarter of their size; browsers unpack them."""
_KEPT = ("favicon-32x32.png", "LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")


def main() -> int:
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        package = _fetch(Path(folder))
        with tarfile.open(package) as tar:
            for name in _KEPT:
                (_FOLDER / name).write_bytes(_member(tar, name))
            for name in _SERVED:
                (_FOLDER / f"{name}.gz").write_bytes(gzip.compress(_member(tar, name), 9, mtime=0))
    print_step(f"Wrote Swagger UI {_RELEASE} to {_FOLDER.relative_to(ROOT)}")
    return 0


def _fetch(folder: Path) -> Path:
    """The release's package; a SetupError when it is not the one that was pinned."""
    package = f"swagger-ui-dist@{_RELEASE}"
    run(["npm", "pack", package, "--pack-destination", str(folder)], "fetch Swagger UI")
    (fetched,) = folder.iterdir()
    found = hashlib.sha256(fetched.read_bytes()).hexdigest()
    if found != _SHA256:
        raise SetupError(
            f"{package} has the SHA-256 {found}, and {_SHA256} is pinned: it is not what was looked at."
        )
    return fetched


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"package/{name}")
    if file is None:
        raise SetupError(f"There is no file {name} in Swagger UI {_RELEASE}.")
    return file.read()


if __name__ == "__main__":
    sys.exit(run_main(main))
