"""`make image`: the server's image, and what weighs what in it.

Its name is `python-executor:<version>`, or what is given: `make image ARGS=registry.example/python-executor:1`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import default_image
import dockerd
import subprocesses
import virtualenv
import wheels
from console import SetupError, print_step, run_main
from docker_api import DockerEngine
from image_size import weigh
from subprocesses import ROOT, run

_VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
_STAGE = "python-executor-build"
_PURPOSE = "build the image"
_ASK = (
    "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.libc_ver()[1], platform.machine())"
)


def main() -> int:
    subprocesses.prepare()
    virtualenv.check_python()
    name = (sys.argv[1:] or [f"python-executor:{_VERSION}"])[0]
    engine = dockerd.ensure()
    base = default_image.usual(engine)
    print_step(f"Fetching what {name} needs, for the Python of {base}")
    folder = wheels.fetch(_interpreter(engine, base))
    print_step(f"Building {name}")
    _build(engine, name, base, folder)
    for line in weigh(engine, name).table():
        print(line)
    print_step(f"Built {name}; docs/deployment.md says how to run it")
    return 0


def _build(engine: DockerEngine, name: str, base: str, folder: Path) -> None:
    """Builds the image on `base`; nothing is fetched meanwhile, and only the image is left on the engine."""
    arguments = {
        "BASE": base,
        "WHEELS": str(folder.relative_to(ROOT)),
        "VERSION": _VERSION,
        "REVISION": _revision(),
    }
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    docker = ["docker", "--host", engine.address]
    build = [*docker, "build", "--network=none", *options]
    # The first stage by a name of its own: else it would stay behind without one, five times as large.
    stage = f"{_STAGE}:{uuid.uuid4().hex[:12]}"
    run([*build, "--target=build", f"--tag={stage}", "."], _PURPOSE)
    try:
        run([*build, f"--tag={name}", "."], _PURPOSE)
    finally:
        run([*docker, "rmi", stage], _PURPOSE)


def _interpreter(engine: DockerEngine, base: str) -> wheels.Interpreter:
    asking = [
        "docker",
        "--host",
        engine.address,
        "run",
        "--rm",
        "--network=none",
        base,
        "python3",
        "-c",
        _ASK,
    ]
    asked = subprocess.run(asking, capture_output=True, text=True, check=False)
    fields = asked.stdout.split()
    if asked.returncode != 0 or len(fields) != 3:
        raise SetupError(
            f"Could not {_PURPOSE}: {base} does not say which Python it has: {asked.stderr.strip()}"
        )
    version, glibc, machine = fields
    return wheels.Interpreter(version, int(glibc.partition(".")[2]), machine)


def _revision() -> str:
    """The commit that is checked out, and whether anything was changed since."""
    asking = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    asked = subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(run_main(main))
