"""The project's virtual environment, .venv: this checkout (editable) and its pinned requirements."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import debian
from console import SetupError, print_step
from subprocesses import ROOT, run

VENV = ROOT / ".venv"
BIN = VENV / "bin"
STATIC_UV = VENV / "share" / "python-executor" / "uv"
PINS = ROOT / "requirements.lock"
_STAMP = VENV / "installed"
_OLDEST_PYTHON = (3, 11)
_SYSTEM_PYTHON = "/usr/bin/python3"
_PURPOSE = "install the Python requirements"
_UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
"""The options of uv, by the names of the equivalent settings of pip."""


def choose_python() -> None:
    """Restart this script with /usr/bin/python3 if this interpreter was built without optimizations.

    An interpreter that the user has chosen with PYTHON is kept. Raises `SetupError` if the interpreter is too old."""
    if "PYTHON" not in os.environ and not _is_optimized() and _is_new_enough(_SYSTEM_PYTHON):
        os.execv(_SYSTEM_PYTHON, [_SYSTEM_PYTHON, *sys.argv])
    if sys.version_info < _OLDEST_PYTHON:
        raise SetupError(
            f"Python {platform.python_version()} ({sys.executable}) is too old: use 3.11 or newer, "
            "for example `make run PYTHON=python3.12`."
        )


def _is_optimized() -> bool:
    """Return True if the interpreter is that of the distribution, or was built with --enable-optimizations.

    Without this option, as in default builds of pyenv, the server takes a third more processor time (2026-11-27). The
    interpreters of distributions are optimized, but their build configuration does not always show it."""
    is_of_system = Path(sys.executable).resolve() == Path(_SYSTEM_PYTHON).resolve()
    return is_of_system or "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")


def _is_new_enough(interpreter: str) -> bool:
    if not Path(interpreter).exists():
        return False
    code = f"import sys; sys.exit(sys.version_info < {_OLDEST_PYTHON})"
    return subprocess.run([interpreter, "-c", code]).returncode == 0


def ensure(*, dev: bool) -> None:
    """Install the requirements into .venv; `dev` adds the development tools.

    Do nothing if the requirements, the location and the interpreter are unchanged since the last installation.
    """
    wanted = _fingerprint()
    present = _STAMP.read_text().split() if _STAMP.exists() else []
    had_dev = present[1:] == ["dev"]
    if present[:1] == [wanted] and (had_dev or not dev):
        return
    constraints = ["-c", str(PINS)]
    if present[:1] == [wanted]:
        # Add to what is there: a server of `make run` may be running from it.
        print_step("Installing the development tools into .venv")
        _install_requirements(VENV, STATIC_UV, dev=True, constraints=constraints)
    else:
        dev = dev or had_dev
        print_step(f"Installing the Python requirements into .venv, for {sys.executable}")
        install(VENV, dev=dev, constraints=constraints)
    _STAMP.write_text(f"{wanted} {'dev' if dev else ''}")


def install(folder: Path, *, dev: bool, constraints: list[str]) -> None:
    """Create a virtual environment in `folder` with this checkout (editable) and its requirements."""
    if importlib.util.find_spec("ensurepip") is None:  # a separate package on Debian
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        debian.install([f"python{version}-venv"], "create a virtual environment")
    # The system's interpreter: the running one may be inside the very folder that --clear empties.
    interpreter = str(Path(sys.executable).resolve())
    run([interpreter, "-m", "venv", "--clear", str(folder)], "create a virtual environment")
    uv = _install_static_uv(folder, [*_pip(folder), "install", *constraints])
    _install_requirements(folder, uv, dev=dev, constraints=constraints)


def _pip(folder: Path) -> list[str]:
    return [str(folder / "bin" / "pip"), "--disable-pip-version-check"]


def _install_requirements(folder: Path, uv: Path, *, dev: bool, constraints: list[str]) -> None:
    options, environment = settings_of_pip(_pip(folder))
    install = [str(uv), "pip", "install", "--python", str(folder / "bin" / "python3"), *options, *constraints]
    # --no-build-isolation makes uv use this setuptools, which is pinned, too.
    run([*install, "--upgrade", "setuptools"], _PURPOSE, environment)
    server = f"{ROOT}[dev,otel]" if dev else str(ROOT)
    editable = ["--no-build-isolation", "-e", str(ROOT / "pyexec_client"), "-e", server]
    run([*install, *editable], _PURPOSE, environment)


def _install_static_uv(folder: Path, install: list[str]) -> Path:
    """Install uv's musl build, and return its path.

    It needs no shared libraries, so setups run it in any image. Here, it takes a sixth of pip's processor time."""
    home = folder / "share" / "python-executor"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tag = f"musllinux_1_1_{platform.machine()}"
        options = ["--no-deps", "--only-binary=:all:", "--platform", tag, "--target", scratch]
        run([*install, *options, "uv"], _PURPOSE)
        home.mkdir(parents=True, exist_ok=True)
        return (Path(scratch) / "bin" / "uv").replace(home / "uv")


def settings_of_pip(pip: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return uv's options and environment for the package indexes that the user has configured for pip.

    See https://pip.pypa.io/en/stable/topics/configuration/: environment variables override `[install]`, and that
    overrides `[global]`."""
    done = subprocess.run([*pip, "config", "list"], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        found.setdefault(section, {})[name] = ast.literal_eval(value)
    settings = {**found["global"], **found["install"], **found[":env:"]}
    # pip takes the best version of all indexes; uv's default is the first index that has the package.
    options = ["--index-strategy=unsafe-best-match"]
    for name, option in _UV_OPTIONS.items():
        options += [f"{option}={value}" for value in settings.get(name, "").split()]
    if "no-index" in settings:
        options.append("--no-index")
    return options, {"SSL_CERT_FILE": settings["cert"]} if "cert" in settings else {}


def _fingerprint() -> str:
    """Hash everything that the installation depends on; its path counts because a venv cannot be moved."""
    sources = [PINS, ROOT / "pyproject.toml", ROOT / "pyexec_client" / "pyproject.toml"]
    parts = [str(VENV).encode(), sys.version.encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
