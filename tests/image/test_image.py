"""The contents, size, user and labels of the server's image."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from typing import Any

import pytest

from tests.docs.blocks import served_pages
from tests.support.deployment import PAGE, SERVER
from tests.support.paths import ROOT

MAX_MEGABYTES = 50.0
TABLE = re.compile(r"^\| (\D[^|]*) \| ([\d.]+) \| ([\d.]+) \|$", re.M)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def config(built: str) -> Any:
    return json.loads(run("docker", "inspect", built))[0]["Config"]


@pytest.fixture(scope="module")
def members(built: str) -> dict[str, tarfile.TarInfo]:
    """List every file of the image."""
    container = run("docker", "create", built).strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            return {member.name: member for member in archive}
    finally:
        run("docker", "rm", "--volumes", container)


def sizes(text: str) -> dict[str, tuple[float, float]]:
    """Parse the table of an image: megabytes uncompressed and compressed, by part."""
    return {part: (float(plain), float(compressed)) for part, plain, compressed in TABLE.findall(text)}


@pytest.fixture(scope="module")
def measured(built: str) -> dict[str, tuple[float, float]]:
    """Measure the parts as `make image` does."""
    return sizes(run(sys.executable, str(ROOT / "dev" / "image_size.py"), built))


@pytest.mark.full
def test_its_compressed_size_is_at_most_50_megabytes(measured: dict[str, tuple[float, float]]) -> None:
    """`make image` prints the size of `docker save | gzip`, which it has measured with zlib."""
    compressed = {part: size for part, (_, size) in measured.items()}
    assert compressed["the image"] < MAX_MEGABYTES
    assert sum(compressed.values()) - compressed["the image"] == pytest.approx(
        compressed["the image"], rel=0.1
    )


@pytest.mark.full
def test_the_sizes_in_the_docs_are_current(measured: dict[str, tuple[float, float]]) -> None:
    written = sizes((ROOT / PAGE).read_text())
    assert written == {part: pytest.approx(size, rel=0.25, abs=0.5) for part, size in measured.items()}


def test_its_size_is_the_documented_one(members: dict[str, tarfile.TarInfo]) -> None:
    """Without compression, which takes ten seconds: the image is close to its limit, so it must not grow."""
    documented, _ = sizes((ROOT / PAGE).read_text())["the image"]
    assert sum(member.size for member in members.values()) / 1e6 == pytest.approx(documented, rel=0.03)


def test_it_has_no_shell_package_manager_or_compiler(members: dict[str, tarfile.TarInfo]) -> None:
    in_bin = re.compile(r"(.*/)?s?bin/(?P<name>[^/]+)")
    programs = {found["name"] for found in map(in_bin.fullmatch, members) if found is not None}
    assert {"python3", "python-executor", "python-executor-server"} <= programs
    assert {
        name for name in programs if not re.fullmatch(r"python[\d.]*|python-executor(-server)?", name)
    } == set()
    unwanted = re.compile(
        r".*(/(sh|bash|dash|busybox|apt|dpkg|gcc|cc|ld|perl)|site-packages/pip/.*|ensurepip/.*)"
    )
    assert [name for name in members if unwanted.fullmatch(name)] == []
    assert [name for name, member in members.items() if member.mode & 0o6000] == []


def test_it_holds_the_pages_that_it_serves(members: dict[str, tarfile.TarInfo]) -> None:
    pages = {name.partition("pyexec/web/pages/")[2] for name, member in members.items() if member.isfile()}
    assert set(served_pages()) <= pages


def test_its_user_can_write_only_to_its_data_and_tmp(
    config: Any, members: dict[str, tarfile.TarInfo]
) -> None:
    assert config["User"] == "10001:10001"
    owned = {name.rstrip("/") for name, member in members.items() if member.uid == 10001}
    assert owned == {"data"}
    world_writable = {
        name.rstrip("/") for name, member in members.items() if member.mode & 0o002 and not member.issym()
    }
    assert world_writable - {"dev", "proc", "sys"} <= {"tmp"}


def test_its_labels_match_the_project(config: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert set(labels) == {"title", "description", "version", "revision", "source", "licenses"}
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    # Git is optional: a bare machine may have the sources from an archive.
    has_git = shutil.which("git") is not None
    commit = run("git", "-C", str(ROOT), "rev-parse", "HEAD").strip() if has_git else "unknown"
    assert labels["revision"].startswith(commit)
    assert project["description"].startswith(labels["description"])
    assert f"python-executor:{project['version']}" == SERVER


def test_help_and_version_need_no_network_or_docker(built: str) -> None:
    docker_run = ["docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    assert "PYEXEC_DEFAULT_IMAGE" in run(*docker_run, built, "--help")
    version = run(*docker_run, built, "--version")
    assert version == f"python-executor-server {SERVER.partition(':')[2]}\n"
    command_line = run(*docker_run, "--entrypoint", "python-executor", built, "--help")
    assert "submit" in command_line


def test_mcp_works_without_the_packages_that_are_left_out(built: str) -> None:
    program = (
        "from pyexec.mcp.sdk import loading_sdk\n"
        "with loading_sdk():\n"
        "    from pyexec.mcp.http import HttpApp\n"
        "    from pyexec.mcp.stdio import serve_stdio\n"
        "from pyexec.settings_parser import read_settings\n"
        "from pyexec.web.application import ROUTES\n"
        "from pyexec.web.openapi.document import openapi_document, server_info\n"
        "HttpApp(openapi_document(ROUTES, server_info(read_settings({}))), 1)\n"
        "print('ready')"
    )
    docker_run = ["docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    python = ["--entrypoint", "/opt/python-executor/bin/python3", built, "-c", program]
    assert run(*docker_run, *python) == "ready\n"


def test_an_invalid_setting_is_a_one_line_error(built: str) -> None:
    command = ["docker", "run", "--rm", "--network=none", "--env", "PYEXEC_PORT=no", built]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("python-executor-server: PYEXEC_PORT is 'no'")
    assert len(done.stderr.splitlines()) == 1
