"""Test the client's distribution: build it, install it alone, and use it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RUN = """
import importlib.util, json, sys
from pyexec_client import Client
with Client(sys.argv[1]) as client:
    result = client.run("print(6 * 7)")
servers = [name for name in ("pyexec", "pyexec_cli", "aiodocker", "asyncclick", "cattrs")
           if importlib.util.find_spec(name)]
print(json.dumps([result.stdout, servers]))
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    # Build from a copy, because the build leaves files next to the sources. The build backend is the one that is
    # installed here; called without pip, it takes a third of the time.
    source = shutil.copytree(ROOT / "pyexec_client", tmp_path / "source")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-P", "-c", build, tmp_path]
    subprocess.run(command, check=True, cwd=source, stdout=subprocess.DEVNULL)
    (built,) = tmp_path.glob("*.whl")
    return built


def uv_pip() -> tuple[list[str], dict[str, str]]:
    """Return the command `uv pip install` and its environment, with the package indexes that are configured for pip."""
    find = (
        "import json, virtualenv; options, environment = virtualenv.settings_of_pip([str(virtualenv.BIN / 'pip')]);"
        "print(json.dumps([[str(virtualenv.STATIC_UV), 'pip', 'install', '--quiet', *options], environment]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", find], cwd=ROOT / "dev", check=True, stdout=subprocess.PIPE, text=True
    )
    command, environment = json.loads(done.stdout)
    return command, environment


def test_the_wheel_works_without_the_server_package(wheel, server, tmp_path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"pyexec_client/py.typed", "pyexec_client/integrations/autogen.py"} <= set(names)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    install, environment = uv_pip()
    requirements = ["--python", venv / "bin" / "python", "-c", ROOT / "requirements.lock", wheel]
    subprocess.run([*install, *requirements], check=True, env=os.environ | environment)
    done = subprocess.run(
        [venv / "bin" / "python", "-c", RUN, server.url], cwd=tmp_path, check=True, capture_output=True
    )
    assert json.loads(done.stdout) == ["42\n", []]
