"""What is in the server's image, and what is not."""

import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import Built
from tests.support.deployment import PAGE, SERVER

ROOT = Path(__file__).parents[2]
MOST_BYTES = 50_000_000
TABLE = re.compile(r"^\| (\D[^|]*) \| ([\d.]+) \| ([\d.]+) \|$", re.M)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def config(built: Built) -> Any:
    return json.loads(run("docker", "inspect", built.name))[0]["Config"]


@pytest.fixture(scope="module")
def members(built: Built) -> dict[str, tarfile.TarInfo]:
    """Every file of the image."""
    container = run("docker", "create", built.name).strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            return {member.name: member for member in archive}
    finally:
        run("docker", "rm", "--volumes", container)


def test_it_travels_as_50_megabytes_at_most(built: Built) -> None:
    weight = int(run("bash", "-o", "pipefail", "-c", f"docker save {built.name} | gzip | wc -c"))
    assert weight <= MOST_BYTES
    # What `make image` prints is what this measures, but for another gzip.
    printed = {part: float(compressed) for part, _, compressed in TABLE.findall(built.printed)}
    assert printed["the image"] == pytest.approx(weight / 1e6, rel=0.02)


def test_the_page_says_what_weighs_what(built: Built) -> None:
    printed, written = (
        {part: (float(plain), float(compressed)) for part, plain, compressed in TABLE.findall(text)}
        for text in (built.printed, PAGE.read_text())
    )
    assert written == {part: pytest.approx(sizes, rel=0.25, abs=0.5) for part, sizes in printed.items()}


def test_there_is_no_shell_no_package_manager_and_no_compiler(members: dict[str, tarfile.TarInfo]) -> None:
    folders = re.compile(r"(.*/)?s?bin/(?P<name>[^/]+)")
    programs = {found["name"] for found in map(folders.fullmatch, members) if found is not None}
    assert {"python3", "python-executor", "python-executor-server"} <= programs
    assert {
        name for name in programs if not re.fullmatch(r"python[\d.]*|python-executor(-server)?", name)
    } == set()
    unwanted = re.compile(
        r".*(/(sh|bash|dash|busybox|apt|dpkg|gcc|cc|ld|perl)|site-packages/pip/.*|ensurepip/.*)"
    )
    assert [name for name in members if unwanted.fullmatch(name)] == []
    assert [name for name, member in members.items() if member.mode & 0o6000] == []


def test_its_user_can_change_nothing_but_its_data(config: Any, members: dict[str, tarfile.TarInfo]) -> None:
    assert config["User"] == "10001:10001"
    own = {name.rstrip("/") for name, member in members.items() if member.uid == 10001}
    assert own == {"data"}
    open_to_all = {
        name.rstrip("/") for name, member in members.items() if member.mode & 0o002 and not member.issym()
    }
    assert open_to_all - {"dev", "proc", "sys"} <= {"tmp"}


def test_its_labels_say_what_it_is(config: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert set(labels) == {"title", "description", "version", "revision", "source", "licenses"}
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["revision"].startswith(run("git", "-C", str(ROOT), "rev-parse", "HEAD").strip())
    assert project["description"].startswith(labels["description"])
    assert f"python-executor:{project['version']}" == SERVER


def test_it_needs_nothing_to_say_what_it_can(built: Built) -> None:
    alone = ["docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    assert "PYEXEC_DEFAULT_IMAGE" in run(*alone, built.name, "--help")
    version = run(*alone, built.name, "--version")
    assert version == f"python-executor-server {SERVER.partition(':')[2]}\n"
    command_line = run(*alone, "--entrypoint", "python-executor", built.name, "--help")
    assert "submit" in command_line


def test_what_it_cannot_serve_with_it_says_in_one_line(built: Built) -> None:
    wrong = ["docker", "run", "--rm", "--network=none", "--env", "PYEXEC_PORT=no", built.name]
    done = subprocess.run(wrong, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("python-executor-server: PYEXEC_PORT is 'no'")
    assert len(done.stderr.splitlines()) == 1
