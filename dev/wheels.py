"""Wheels of everything that the server requires, for the interpreter of another machine or image."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import virtualenv
from subprocesses import ROOT, RUN_DIR, run

FOLDER = RUN_DIR / "wheels"
_STAMP = FOLDER / "fetched"
_PURPOSE = "fetch the Python requirements of the image"
_OLDEST_GLIBC = 17  # of manylinux2014, whose wheels run everywhere


@dataclass(frozen=True)
class Interpreter:
    """Whose wheels they are to be: Python's version, the second number of glibc's, and the processor."""

    version: str
    glibc: int
    machine: str

    def options(self) -> list[str]:
        """What tells pip that it fetches for this interpreter, not for its own."""
        platforms = [f"manylinux_2_{n}_{self.machine}" for n in range(self.glibc, _OLDEST_GLIBC - 1, -1)]
        platforms.append(f"manylinux2014_{self.machine}")
        return [f"--python-version={self.version}", *(f"--platform={name}" for name in platforms)]


def fetch(target: Interpreter) -> Path:
    """A folder with a wheel of each pinned requirement, of pip, of the build backend, and of the static uv.

    Costs nothing when neither these nor the interpreter changed since the last time."""
    wanted = _fingerprint(target)
    if _STAMP.exists() and _STAMP.read_text() == wanted:
        return FOLDER
    virtualenv.ensure(dev=False)
    pip = [str(virtualenv.BIN / "pip"), "--disable-pip-version-check"]
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    download = [*pip, "download", f"--dest={FOLDER}", f"--constraint={virtualenv.PINS}", "--no-deps"]
    requirements = _closure(pip)
    run([*download, *target.options(), *requirements], _PURPOSE)
    musl = ["--only-binary=:all:", f"--platform=musllinux_1_1_{target.machine}", "uv"]
    run([*download, *musl], _PURPOSE)
    for source in FOLDER.glob("*.tar.gz"):  # what has no wheel is plain Python: built here, it runs anywhere
        run([*pip, "wheel", "--no-deps", f"--wheel-dir={FOLDER}", str(source)], _PURPOSE)
        source.unlink()
    _STAMP.write_text(wanted)
    return FOLDER


def _fingerprint(target: Interpreter) -> str:
    sources = [
        virtualenv.PINS,
        ROOT / "pyproject.toml",
        ROOT / "pyexec_client" / "pyproject.toml",
        Path(__file__),
    ]
    parts = [repr(target).encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _closure(pip: list[str]) -> list[str]:
    """The pinned requirements of the server, and theirs, and of making it: pip and the build backend."""
    with tempfile.NamedTemporaryFile(dir=RUN_DIR, suffix=".json") as report:
        resolve = ["install", "--dry-run", "--ignore-installed", "--quiet", f"--report={report.name}"]
        parts = ["--no-build-isolation", str(ROOT / "pyexec_client"), str(ROOT), "pip", "setuptools"]
        run([*pip, *resolve, f"--constraint={virtualenv.PINS}", *parts], _PURPOSE)
        found = json.loads(Path(report.name).read_text())["install"]
    fetched = [item for item in found if "dir_info" not in item["download_info"]]
    return [f"{item['metadata']['name']}=={item['metadata']['version']}" for item in fetched]
