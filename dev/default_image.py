"""The image that code runs in unless a request names another."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from console import SetupError, print_step
from debian import build_root, codename
from docker_api import DockerEngine
from subprocesses import RUN_DIR

_USUAL = "python:3.12-slim"
_SILENCE_SECONDS = 30.0
# What a program needs to run, and what fetches over TLS need; `python` for scripts that say so.
_PACKAGES = ["python3", "python-is-python3", "ca-certificates"]
_SUPERFLUOUS = [
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
]


def ensure(engine: DockerEngine) -> str:
    """The name of a Python image the engine has: the one asked for, else the usual one."""
    asked = os.environ.get("PYEXEC_DEFAULT_IMAGE")
    if asked:
        if not engine.has_image(asked):
            print_step(f"Pulling {asked}, which PYEXEC_DEFAULT_IMAGE names")
            engine.pull(asked, _SILENCE_SECONDS)
        return asked
    return usual(engine)


def usual(engine: DockerEngine) -> str:
    """The name of a Python image the engine has, whatever is asked for: a known one, pulled or built."""
    built = f"pyexec-python:{codename()}"
    for name in (_USUAL, built):
        if engine.has_image(name):
            return name
    print_step(f"Pulling {_USUAL}")
    try:
        engine.pull(_USUAL, _SILENCE_SECONDS)
    except SetupError as failure:
        print_step(f"{failure}")
        _build(engine, built)
        return built
    return _USUAL


def _build(engine: DockerEngine, name: str) -> None:
    if os.geteuid() != 0:
        raise SetupError(
            "A Python image can be built here only by root: run this as root, or set PYEXEC_DEFAULT_IMAGE."
        )
    print_step(f"Building {name} from this machine's own packages instead (about a minute)")
    with tempfile.TemporaryDirectory(dir=RUN_DIR, prefix="image-") as scratch:
        root = Path(scratch) / "root"
        build_root(root, _PACKAGES)
        _slim(root)
        archive = ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(root), "-c", "."]
        with subprocess.Popen(archive, stdout=subprocess.PIPE) as tar:
            if tar.stdout is None:
                raise AssertionError("a pipe was asked for")
            engine.import_image(name, tar.stdout, command="python3")
        if tar.returncode != 0:
            raise SetupError(f"Could not build {name}: tar ended with {tar.returncode}.")


def _slim(root: Path) -> None:
    """Leave out what no program reads; licences stay."""
    for folder in _SUPERFLUOUS:
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    for document in (root / "usr/share/doc").rglob("*"):
        if document.name != "copyright" and not document.is_dir():
            document.unlink()
