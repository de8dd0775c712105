"""Virtual environments with one agent framework each, for the tests of pyexec_client/integrations."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import virtualenv
from console import print_step
from subprocesses import ROOT, RUN_DIR, run

_FRAMEWORKS = {
    "autogen": ["autogen-agentchat", "autogen-ext"],
    "google_adk": ["google-adk"],
    "langchain": ["langchain"],
    "openai_agents": ["openai-agents"],
    "smolagents": ["smolagents"],
}
"""The packages of each framework, by the name of its module in pyexec_client/integrations."""
_HEADER = "# Exact versions of everything that is installed; written by `make lock`.\n"
_PINS = ROOT / "tests" / "integrations" / "pins"
_HOME = RUN_DIR / "integrations"
_CLIENT = ROOT / "pyexec_client" / "pyproject.toml"


def ensure() -> None:
    """Create the environments in .run/integrations. Leave one as it is if its pinned versions are unchanged."""
    virtualenv.ensure(dev=True)
    for name in _FRAMEWORKS:
        pins = _PINS / f"{name}.txt"
        stamp = _HOME / name / "installed"
        parts = [pins.read_bytes(), str(stamp).encode(), sys.version.encode()]
        wanted = hashlib.sha256(b"\0".join(parts)).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            print_step(f"Installing {_FRAMEWORKS[name][0]} into {stamp.parent.relative_to(ROOT)}")
            _install(stamp.parent, ["-r", str(pins)])
            stamp.write_text(wanted)


def lock() -> None:
    """Pin the latest versions of the frameworks, of pytest, and of the client's requirements."""
    client = tomllib.loads(_CLIENT.read_text())["project"]["dependencies"]
    for name, packages in _FRAMEWORKS.items():
        with tempfile.TemporaryDirectory(dir=RUN_DIR, prefix="lock-") as folder:
            _install(Path(folder), [*packages, "pytest", *client])
            freeze = [*_pip(Path(folder)), "freeze"]
            pins = subprocess.run(freeze, stdout=subprocess.PIPE, text=True, check=True).stdout
        (_PINS / f"{name}.txt").write_text(_HEADER + pins)
        print_step(f"Pinned {packages[0]} in {(_PINS / name).relative_to(ROOT)}.txt")


def _install(folder: Path, packages: list[str]) -> None:
    interpreter = str(Path(sys.executable).resolve())
    purpose = "install an agent framework"
    run([interpreter, "-m", "venv", "--without-pip", "--clear", str(folder)], purpose)
    run([*_pip(folder), "install", "--quiet", *packages], purpose)


def _pip(folder: Path) -> list[str]:
    python = str(folder / "bin" / "python")
    return [str(virtualenv.BIN / "pip"), "--disable-pip-version-check", "--python", python]
