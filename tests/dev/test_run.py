"""`make run` as a newcomer meets it: real processes, a real engine, the program's own words."""

import asyncio
import json
import re
import socket
from pathlib import Path

import aiodocker
import pytest

from tests.support.terminal import press_ctrl_c, run_cli, run_dev, said_until, started


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
    with started(["make", "run"], PYEXEC_PORT="0", PYEXEC_DATA_DIR=str(tmp_path)) as process:
        said = said_until(process, "Ctrl-C stops it")
        assert "Hello from a sandbox" in said
        assert "Installing" not in said, "a machine that is set up is not set up again"
        url = re.findall(r"listens on (http://\S+);", said)[0]
        assert run_cli(url, stdin="print(6 * 7)") == "42\n"
        assert containers_of(tmp_path), "sandboxes wait for the next program"
        press_ctrl_c(process)
        farewell = said_until(process, "no container is left")
    assert "Traceback" not in farewell
    assert containers_of(tmp_path) == []


def test_sigterm_to_the_script_alone_is_a_clean_end(tmp_path: Path) -> None:
    command = ["python3", "dev/run.py"]
    with started(command, PYEXEC_PORT="0", PYEXEC_DATA_DIR=str(tmp_path)) as process:
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
    assert (
        done.stderr
        == "error: Nothing is called 'tset' here: allowed are check, lint, test, soak, bench, docs, audit.\n"
    )
