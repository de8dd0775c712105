"""`make image`: the server's image, `python-executor:<version>`, and what weighs what in it."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import command
import dockerd
import image
import virtualenv
import wheels
from command import ROOT, run
from engine import Engine
from report import Failure, exit_code_of, say
from weights import weigh

_VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = f"python-executor:{_VERSION}"
_PURPOSE = "build the image"
_ASK = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.libc_ver()[1], platform.machine())"


def main() -> int:
    command.prepare()
    virtualenv.check_python()
    engine = dockerd.ensure()
    build(engine)
    for line in weigh(engine, NAME).table():
        print(line)
    say(f"Built {NAME}; docs/deployment.md says how to run it")
    return 0


def build(engine: Engine) -> None:
    """Builds the image on the Python image that this engine has or can have; nothing is fetched meanwhile."""
    base = image.usual(engine)
    say(f"Fetching what {NAME} needs, for the Python of {base}")
    folder = wheels.fetch(_interpreter(engine, base))
    say(f"Building {NAME}")
    arguments = {
        "BASE": base,
        "WHEELS": str(folder.relative_to(ROOT)),
        "VERSION": _VERSION,
        "REVISION": _revision(),
    }
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    # The stage that gathers goes with each build that succeeds; layers that both have in common stay.
    docker = ["docker", "--host", engine.address, "build", "--network=none", f"--tag={NAME}"]
    run([*docker, *options, "."], _PURPOSE)


def _interpreter(engine: Engine, base: str) -> wheels.Interpreter:
    asking = ["docker", "--host", engine.address, "run", "--rm", "--network=none", base, "python3", "-c", _ASK]
    asked = subprocess.run(asking, capture_output=True, text=True, check=False)
    fields = asked.stdout.split()
    if asked.returncode != 0 or len(fields) != 3:
        raise Failure(f"Could not {_PURPOSE}: {base} does not say which Python it has: {asked.stderr.strip()}")
    version, glibc, machine = fields
    return wheels.Interpreter(version, int(glibc.partition(".")[2]), machine)


def _revision() -> str:
    """The commit that is checked out, and whether anything was changed since."""
    asking = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    asked = subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
