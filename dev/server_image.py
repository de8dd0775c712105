"""`make image`: build the server's container image and print the size of its parts.

The name is `python-executor:<version>`, or the argument: `make image ARGS=registry.example/python-executor:1`.
`--no-sizes` skips the measurement (ten seconds). `dev/image_size.py NAME` does it later."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import default_image
import dockerd
import image_packages
import subprocesses
import virtualenv
from console import SetupError, print_step, run_main
from docker_api import DockerEngine
from image_size import print_sizes
from subprocesses import ROOT, run

_VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
_NO_SIZES = "--no-sizes"
_STAGE = "python-executor.stage"
_PURPOSE = "build the image"
_PRINT_INTERPRETER = (
    "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.libc_ver()[1], platform.machine())"
)


def main() -> int:
    subprocesses.prepare()
    virtualenv.choose_python()
    arguments = sys.argv[1:]
    measures = _NO_SIZES not in arguments
    name = next((each for each in arguments if each != _NO_SIZES), f"python-executor:{_VERSION}")
    engine = dockerd.ensure()
    base = default_image.pull_or_build(engine)
    print_step(f"Installing the requirements of {name} for the Python of {base}")
    folder = image_packages.install(_interpreter(engine, base))
    print_step(f"Building {name}")
    _build(engine, name, base, folder)
    if measures:
        print_sizes(engine, name)
    print_step(f"Built {name}; see docs/deployment.md for how to run it")
    return 0


def _build(engine: DockerEngine, name: str, base: str, folder: Path) -> None:
    """Build the image on `base` without network access; remove the first stage."""
    stage = uuid.uuid4().hex
    arguments = {
        "BASE": base,
        "STAGE": stage,
        "PACKAGES": str(folder.relative_to(ROOT)),
        "VERSION": _VERSION,
        "REVISION": _revision(),
    }
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    docker = ["docker", "--host", engine.address]
    try:
        run([*docker, "build", "--network=none", *options, f"--tag={name}", "."], _PURPOSE)
    finally:
        # The classic builder keeps the first stage, which is five times as large as the image. BuildKit does not.
        listing = [*docker, "images", "--quiet", f"--filter=label={_STAGE}={stage}"]
        listed = subprocess.run(listing, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        if listed:
            run([*docker, "rmi", *listed], _PURPOSE)


def _interpreter(engine: DockerEngine, base: str) -> image_packages.Interpreter:
    """Determine the interpreter of an image by running it."""
    docker_run = ["docker", "--host", engine.address, "run", "--rm", "--network=none"]
    command = [*docker_run, base, "python3", "-c", _PRINT_INTERPRETER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    fields = done.stdout.split()
    if done.returncode != 0 or len(fields) != 3:
        raise SetupError(
            f"Cannot {_PURPOSE}: cannot determine the Python version of {base}: {done.stderr.strip()}"
        )
    version, glibc, machine = fields
    return image_packages.Interpreter(version, int(glibc.partition(".")[2]), machine)


def _revision() -> str:
    """Return the checked-out commit, with `-dirty` appended if there are uncommitted changes.

    Without git, or outside a repository, it is "unknown"."""
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(run_main(main))
