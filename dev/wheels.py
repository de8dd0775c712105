"""Wheels of all server requirements, downloaded for the interpreter of another image."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import virtualenv
from subprocesses import ROOT, RUN_DIR, run

FOLDER = RUN_DIR / "wheels"
_STAMP = FOLDER / "fetched"
_PURPOSE = "download the Python requirements of the image"
_OLDEST_GLIBC_MINOR = 17  # glibc 2.17 is manylinux2014


@dataclass(frozen=True)
class Interpreter:
    """The interpreter to download for: its Python version, the minor version of its glibc, and its processor."""

    version: str
    glibc_minor: int
    machine: str

    def pip_options(self) -> list[str]:
        """Return the options that make pip download for this interpreter instead of its own."""
        minors = range(self.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1)
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in minors]
        platforms.append(f"manylinux2014_{self.machine}")
        return [f"--python-version={self.version}", *(f"--platform={name}" for name in platforms)]


def fetch(target: Interpreter) -> Path:
    """Return a folder with wheels of all pinned requirements, pip, the build backend and the static uv.

    Download nothing if the requirements and the interpreter are unchanged since the last time."""
    wanted = _fingerprint(target)
    if _STAMP.exists() and _STAMP.read_text() == wanted:
        return FOLDER
    virtualenv.ensure(dev=False)
    pip = [str(virtualenv.BIN / "pip"), "--disable-pip-version-check"]
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    download = [*pip, "download", f"--dest={FOLDER}", f"--constraint={virtualenv.PINS}", "--no-deps"]
    requirements = _resolve(pip)
    run([*download, *target.pip_options(), *requirements], _PURPOSE)
    static_uv = ["--only-binary=:all:", f"--platform=musllinux_1_1_{target.machine}", "uv"]
    run([*download, *static_uv], _PURPOSE)
    for source in FOLDER.glob("*.tar.gz"):  # packages without wheels are pure Python: a wheel built here fits
        run([*pip, "wheel", "--no-deps", f"--wheel-dir={FOLDER}", str(source)], _PURPOSE)
        source.unlink()
    _STAMP.write_text(wanted)
    return FOLDER


def _fingerprint(target: Interpreter) -> str:
    projects = [ROOT / "pyproject.toml", ROOT / "pyexec_client" / "pyproject.toml"]
    sources = [virtualenv.PINS, *projects, Path(__file__)]
    parts = [repr(target).encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _resolve(pip: list[str]) -> list[str]:
    """Return the exact versions of all direct and indirect requirements, and of pip and the build backend.

    uv takes a second of processor time, `pip install --dry-run` 14 seconds (2026-11-27)."""
    options, environment = virtualenv.settings_of_pip(pip)
    with tempfile.TemporaryDirectory(dir=RUN_DIR) as scratch:
        wanted, pinned = Path(scratch) / "wanted.txt", Path(scratch) / "pinned.txt"
        wanted.write_text(f"{ROOT / 'pyexec_client'}\n{ROOT}\npip\nsetuptools\n")
        uv = [
            str(virtualenv.BIN / "uv"),
            "pip",
            "compile",
            "--no-header",
            "--no-annotate",
            "--no-build-isolation",
        ]
        target = [f"--python={virtualenv.BIN / 'python3'}", f"--constraint={virtualenv.PINS}"]
        run([*uv, *target, *options, f"--output-file={pinned}", str(wanted)], _PURPOSE, environment)
        return [line for line in pinned.read_text().splitlines() if "==" in line]
