"""The packages of all server requirements, installed in a folder for the interpreter of another image."""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import virtualenv
from console import SetupError
from subprocesses import ROOT, RUN_DIR, run

FOLDER = RUN_DIR / "image"
_STAMP = FOLDER / "installed"
_PURPOSE = "install the Python requirements of the image"
_NEWEST_GLIBC_MINOR = 40  # that uv has a name for


@dataclass(frozen=True)
class Interpreter:
    """The interpreter to install for: its Python version, the minor version of its glibc, and its processor."""

    version: str
    glibc_minor: int
    machine: str

    def uv_options(self) -> list[str]:
        """Return the options that make uv install for this interpreter instead of its own."""
        minor = min(self.glibc_minor, _NEWEST_GLIBC_MINOR)
        return [f"--python-version={self.version}", f"--python-platform={self.machine}-manylinux_2_{minor}"]


def install(target: Interpreter) -> Path:
    """Return a folder with `packages.tar`, all pinned requirements and the build backend, and the static `uv`.

    Docker copies one file much faster than thousands.

    Do nothing if the requirements and the interpreter are unchanged since the last time."""
    wanted = _fingerprint(target)
    if _STAMP.exists() and _STAMP.read_text() == wanted:
        return FOLDER
    if target.machine != platform.machine():
        raise SetupError(
            f"Cannot {_PURPOSE}: it needs {target.machine}, this machine is {platform.machine()}."
        )
    virtualenv.ensure(dev=False)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    shutil.copy2(virtualenv.STATIC_UV, FOLDER / "uv")
    uv = [str(virtualenv.STATIC_UV), "pip"]
    pip = [str(virtualenv.BIN / "pip"), "--disable-pip-version-check"]
    options, environment = virtualenv.settings_of_pip(pip)
    options += [f"--python={virtualenv.BIN / 'python3'}", f"--constraint={virtualenv.PINS}"]
    names = _resolve([*uv, "compile", *options], environment)
    with tempfile.TemporaryDirectory(dir=RUN_DIR) as scratch:
        packages = f"{scratch}/packages"
        command = [
            *uv,
            "install",
            *options,
            *target.uv_options(),
            "--no-deps",
            f"--target={packages}",
            *names,
        ]
        run(command, _PURPOSE, environment)  # mostly from uv's cache, which has the packages of .venv
        tar = [
            "tar",
            "--create",
            "--mode=u+rwX,go+rX",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--directory",
            packages,
        ]
        # Leave out bin: its scripts name the interpreter of .venv, and its uv is not static.
        run([*tar, f"--file={FOLDER / 'packages.tar'}", "--exclude=./bin", "."], _PURPOSE)
    _STAMP.write_text(wanted)
    return FOLDER


def _resolve(compile_pins: list[str], environment: dict[str, str]) -> list[str]:
    """Return the exact versions of all direct and indirect requirements, and of the build backend."""
    with tempfile.TemporaryDirectory(dir=RUN_DIR) as scratch:
        wanted, pinned = Path(scratch) / "wanted.txt", Path(scratch) / "pinned.txt"
        wanted.write_text(f"{ROOT / 'pyexec_client'}\n{ROOT}[otel]\nsetuptools\n")
        quiet = ["--no-header", "--no-annotate", "--no-build-isolation"]
        run([*compile_pins, *quiet, f"--output-file={pinned}", str(wanted)], _PURPOSE, environment)
        return [line for line in pinned.read_text().splitlines() if "==" in line]


def _fingerprint(target: Interpreter) -> str:
    projects = [ROOT / "pyproject.toml", ROOT / "pyexec_client" / "pyproject.toml"]
    sources = [virtualenv.PINS, *projects, Path(__file__)]
    parts = [repr(target).encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
