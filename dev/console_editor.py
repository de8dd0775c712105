"""Download the editor of the console: `python3 dev/console_editor.py` writes the modules of the pinned release that the
console imports, and their licence.

The files are committed: run this, with npm installed, only to change the release or the imported modules."""

from __future__ import annotations

import posixpath
import re
import shutil
import sys

from console import print_step, run_main
from npm_package import Package, package
from subprocesses import ROOT, prepare

_RELEASE = "5.4.0"
_SHA256 = "b735273a0e5aeed63492d0e2a18d75e7e72ccbb960e25b55d75fc4be3eddffa2"
_FOLDER = ROOT / "pyexec" / "web" / "console" / "editor"
_MODULES = (
    "dist/index.js",
    "dist/languages/python.js",
    "dist/prism/languages/python.js",
    "dist/extensions/commands/index.js",
    "dist/extensions/matchBrackets/index.js",
)
_COPIED = ("LICENSE", "dist/layout.css")
_IMPORT = re.compile(r'^import .*?"(\.[^"]+)";$|^import "(\.[^"]+)";$', re.MULTILINE)
_SOURCE_MAP = re.compile(rb"\n*//# sourceMappingURL=.*\n?$")


def main() -> int:
    prepare()
    shutil.rmtree(_FOLDER, ignore_errors=True)
    with package("prism-code-editor", _RELEASE, _SHA256) as found:
        for path in (*_COPIED, *sorted(_closure(found))):
            target = _FOLDER / path.removeprefix("dist/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_SOURCE_MAP.sub(b"\n", found.read(path)))
    print_step(f"Wrote prism-code-editor {_RELEASE} to {_FOLDER.relative_to(ROOT)}")
    return 0


def _closure(found: Package) -> set[str]:
    """Return the paths of the modules and of all modules that they import."""
    paths: set[str] = set()
    waiting = list(_MODULES)
    while waiting:
        path = waiting.pop()
        if path not in paths:
            paths.add(path)
            for names in _IMPORT.findall(found.read(path).decode()):
                name = next(filter(None, names))
                waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(path), name)))
    return paths


if __name__ == "__main__":
    sys.exit(run_main(main))
