"""`make run` as a newcomer meets it: real processes, a real engine, the program's own words."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiodocker
import pytest

ROOT = Path(__file__).parents[2]
CLI = ROOT / ".venv" / "bin" / "python-executor"


@contextmanager
def make_run(command: list[str], **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A start in a process group of its own, as from a terminal; told to end when the test fails."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise


def said_until(process: subprocess.Popen[str], words: str) -> str:
    """What the process says up to the line that has these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"it ended without {words!r}, having said:\n{said}")


def containers_of(data: Path) -> list[str]:
    """The containers of the server that keeps its data there; one that never got a name made none."""
    name = data / "deployment"
    if not name.exists():
        return []
    label = f"pyexec.deployment={name.read_text().strip()}"

    async def listing() -> list[str]:
        async with aiodocker.Docker() as docker:
            found = await docker.containers.list(all=True, filters=json.dumps({"label": [label]}))
        return [container.id for container in found]

    return asyncio.run(listing())


def test_runs_a_program_and_leaves_nothing_behind_on_ctrl_c(tmp_path: Path) -> None:
    with make_run(["make", "run"], PYEXEC_PORT="0", PYEXEC_DATA_DIR=str(tmp_path)) as process:
        said = said_until(process, "Ctrl-C stops it")
        assert "Hello from a sandbox" in said
        assert "Installing" not in said, "a machine that is set up is not set up again"
        url = re.findall(r"listens on (http://\S+);", said)[0]
        answer = subprocess.run(
            [CLI, "--server", url], input="print(6 * 7)", capture_output=True, text=True, check=False
        )
        assert (answer.returncode, answer.stdout) == (0, "42\n")
        assert containers_of(tmp_path), "sandboxes wait for the next program"
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
        farewell = said_until(process, "no container is left")
    assert "Traceback" not in farewell
    assert containers_of(tmp_path) == []


def test_sigterm_to_the_script_alone_is_a_clean_end(tmp_path: Path) -> None:
    command = ["python3", "dev/run.py"]
    with make_run(command, PYEXEC_PORT="0", PYEXEC_DATA_DIR=str(tmp_path)) as process:
        said_until(process, "Ctrl-C stops it")
        process.terminate()
        said_until(process, "no container is left")
    assert process.returncode == 0
    assert containers_of(tmp_path) == []


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_dev("run.py", PYEXEC_PORT=port, PYEXEC_DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert port in done.stderr
    assert containers_of(tmp_path) == []
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", [["run.py"], ["check.py", "test"]])
def test_an_engine_that_does_not_answer_is_one_sentence(script: list[str]) -> None:
    done = run_dev(*script, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: No Docker Engine answers at unix:///nowhere/docker.sock: "
        "start it, or unset DOCKER_HOST to use one on this machine.\n"
    )


def test_an_address_of_another_kind_names_the_allowed_ones() -> None:
    done = run_dev("run.py", DOCKER_HOST="ssh://somewhere")
    assert done.returncode == 1
    assert done.stderr == (
        "error: The Docker address 'ssh://somewhere' is not understood: "
        "allowed are unix:///path and tcp://host:port.\n"
    )


def test_an_unknown_story_names_the_known_ones() -> None:
    done = run_dev("check.py", "tset")
    assert done.returncode == 1
    assert done.stderr == "error: Nothing is called 'tset' here: allowed are lint, test, soak, bench.\n"


def run_dev(*script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings}
    return subprocess.run(
        ["python3", *script], cwd=ROOT / "dev", env=environment, capture_output=True, text=True, check=False
    )
