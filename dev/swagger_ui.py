"""Download the Swagger UI that the server ships: `python3 dev/swagger_ui.py` writes the files of the pinned release.

The files are committed: run this, with npm installed, only to change the release."""

from __future__ import annotations

import gzip
import sys

from console import print_step, run_main
from npm_package import package
from subprocesses import ROOT, prepare

_RELEASE = "5.35.0"
_SHA256 = "1b8e891893404ea4c3558b6a87e2a3e494e7eedba41168c2ece5800a391a6ea6"
_FOLDER = ROOT / "pyexec" / "web" / "swagger"
_COMPRESSED = ("swagger-ui-bundle.js", "swagger-ui.css")
"""Stored and served as gzip, at a quarter of the size."""
_COPIED = ("favicon-32x32.png", "LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")


def main() -> int:
    prepare()
    with package("swagger-ui-dist", _RELEASE, _SHA256) as found:
        for name in _COPIED:
            (_FOLDER / name).write_bytes(found.read(name))
        for name in _COMPRESSED:
            (_FOLDER / f"{name}.gz").write_bytes(gzip.compress(found.read(name), 9, mtime=0))
    print_step(f"Wrote Swagger UI {_RELEASE} to {_FOLDER.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
