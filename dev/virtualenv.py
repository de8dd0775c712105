"""The project's virtual environment, `.venv`: this checkout and its pinned requirements."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import sys
import tempfile
from pathlib import Path

import debian
from console import SetupError, print_step
from subprocesses import ROOT, run

VENV = ROOT / ".venv"
BIN = VENV / "bin"
PINS = ROOT / "requirements.lock"
_STAMP = VENV / "installed"
_OLDEST = (3, 11)
_PURPOSE = "install the Python requirements"


def check_python() -> None:
    """A SetupError if the interpreter that runs this is too old for the project."""
    if sys.version_info < _OLDEST:
        raise SetupError(
            f"Python 3.11 or newer is needed and this is {platform.python_version()} ({sys.executable}): "
            "name another one, as in `make run PYTHON=python3.12`."
        )


def ensure(*, dev: bool) -> None:
    """Make `.venv` hold what the pins and the pyproject files name, with the dev extra if asked.

    Costs nothing when neither they, nor the place, nor the interpreter changed since the last time.
    """
    wanted = _fingerprint()
    present = _STAMP.read_text().split() if _STAMP.exists() else []
    had_dev = present[1:] == ["dev"]
    if present[:1] == [wanted] and (had_dev or not dev):
        return
    dev = dev or had_dev
    print_step("Installing the Python requirements into .venv")
    install(VENV, dev=dev, constraints=["-c", str(PINS)])
    _STAMP.write_text(f"{wanted} {'dev' if dev else ''}")


def install(folder: Path, *, dev: bool, constraints: list[str]) -> None:
    """Make a new virtual environment in `folder` with this checkout, editable, and what it requires."""
    if importlib.util.find_spec("ensurepip") is None:  # Debian keeps it in a package of its own
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        debian.install([f"python{version}-venv"], "make a virtual environment")
    # The interpreter behind the one that runs this, which may lie in the very folder that is cleared.
    interpreter = str(Path(sys.executable).resolve())
    run([interpreter, "-m", "venv", "--clear", str(folder)], "make a virtual environment")
    pip = [str(folder / "bin" / "pip"), "install", "--disable-pip-version-check", *constraints]
    # The build backend is pinned like the rest: installed first, then used in place.
    run([*pip, "--upgrade", "setuptools"], _PURPOSE)
    server = f"{ROOT}[dev]" if dev else str(ROOT)
    run([*pip, "--no-build-isolation", "-e", str(ROOT / "pyexec_client"), "-e", server], _PURPOSE)
    _install_static_uv(folder, pip)


def _install_static_uv(folder: Path, pip: list[str]) -> None:
    """The build of uv for musl needs no shared library: it runs in whatever image a setup begins with."""
    home = folder / "share" / "python-executor"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tag = f"musllinux_1_1_{platform.machine()}"
        run(
            [*pip, "--no-deps", "--only-binary=:all:", "--platform", tag, "--target", scratch, "uv"], _PURPOSE
        )
        home.mkdir(parents=True, exist_ok=True)
        (Path(scratch) / "bin" / "uv").replace(home / "uv")


def _fingerprint() -> str:
    """Changes with whatever an installation depends on; a virtual environment cannot be moved."""
    sources = [PINS, ROOT / "pyproject.toml", ROOT / "pyexec_client" / "pyproject.toml"]
    parts = [str(VENV).encode(), sys.version.encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
