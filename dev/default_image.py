"""The image that programs run in unless a request names another one."""

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

_PYTHON_IMAGE = "python:3.12-slim"
_STALL_SECONDS = 30.0
# python-is-python3 is for scripts that call `python`; ca-certificates is for TLS.
_PACKAGES = ["python3", "python-is-python3", "ca-certificates"]
_UNUSED_FOLDERS = [
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
]


def ensure(engine: DockerEngine) -> str:
    """Return the name of a Python image on the engine: PYEXEC_DEFAULT_IMAGE if set, pulled if necessary."""
    configured = os.environ.get("PYEXEC_DEFAULT_IMAGE")
    if configured:
        if not engine.has_image(configured):
            print_step(f"Pulling {configured} (PYEXEC_DEFAULT_IMAGE)")
            engine.pull(configured, _STALL_SECONDS)
        return configured
    return pull_or_build(engine)


def pull_or_build(engine: DockerEngine) -> str:
    """Return the name of a Python image on the engine, ignoring PYEXEC_DEFAULT_IMAGE.

    If no image is present and the pull fails, build one from the machine's own packages."""
    built = f"pyexec-python:{codename()}"
    for name in (_PYTHON_IMAGE, built):
        if engine.has_image(name):
            return name
    print_step(f"Pulling {_PYTHON_IMAGE}")
    try:
        engine.pull(_PYTHON_IMAGE, _STALL_SECONDS)
    except SetupError as error:
        print_step(f"{error}")
        _build(engine, built)
        return built
    return _PYTHON_IMAGE


def _build(engine: DockerEngine, name: str) -> None:
    if os.geteuid() != 0:
        raise SetupError("Building a Python image needs root: run this as root, or set PYEXEC_DEFAULT_IMAGE.")
    print_step(f"Building {name} from this machine's packages instead (takes about a minute)")
    with tempfile.TemporaryDirectory(dir=RUN_DIR, prefix="image-") as scratch:
        root = Path(scratch) / "root"
        build_root(root, _PACKAGES)
        _remove_unused(root)
        archive = ["tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(root), "-c", "."]
        with subprocess.Popen(archive, stdout=subprocess.PIPE) as tar:
            if tar.stdout is None:
                raise AssertionError("tar has no stdout pipe")
            engine.import_image(name, tar.stdout, command="python3")
        if tar.returncode != 0:
            raise SetupError(f"Cannot build {name}: tar exited with code {tar.returncode}.")


def _remove_unused(root: Path) -> None:
    """Empty folders that no program reads, and remove documentation except licences."""
    for folder in _UNUSED_FOLDERS:
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    for document in (root / "usr/share/doc").rglob("*"):
        if document.name != "copyright" and not document.is_dir():
            document.unlink()
