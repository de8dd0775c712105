"""Test the client's distribution: build it, install it alone, and use it."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
    # Build from a copy, because the build leaves files next to the sources.
    source = shutil.copytree(ROOT / "pyexec_client", tmp_path / "source")
    # Use the build backend that is installed here.
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True)
    (built,) = tmp_path.glob("*.whl")
    return built


def test_the_wheel_works_without_the_server_package(wheel, server, tmp_path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"pyexec_client/py.typed", "pyexec_client/integrations/autogen.py"} <= set(names)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    # The pip that is installed here: to install another one takes longer than the test.
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet"]
    subprocess.run([*pip, "-c", ROOT / "requirements.lock", wheel], check=True)
    done = subprocess.run(
        [venv / "bin" / "python", "-c", RUN, server.url], cwd=tmp_path, check=True, capture_output=True
    )
    assert json.loads(done.stdout) == ["42\n", []]
