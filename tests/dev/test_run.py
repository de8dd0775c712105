"""`make run` and the error messages of dev/, with real processes and a real Docker Engine."""

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

from tests.support.terminal import output_until, press_ctrl_c, run_cli, run_dev, started


def containers_of(data: Path) -> list[str]:
    """List the containers of the server with this data directory; none if it never started."""
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
        said = output_until(process, "Press Ctrl-C to stop")
        assert "Hello from a sandbox" in said
        assert "Installing" not in said, "setup runs only once"
        url = re.findall(r"is running at (http://\S+)\. To try it", said)[0]
        assert run_cli(url, stdin="print(6 * 7)") == "42\n"
        assert containers_of(tmp_path), "the pool has idle sandboxes"
        press_ctrl_c(process)
        last_output = output_until(process, "no containers remain")
    assert "Traceback" not in last_output
    assert containers_of(tmp_path) == []


def test_a_killed_server_is_reported_and_the_next_one_stops_cleanly_on_sigterm(tmp_path: Path) -> None:
    """The next one also removes the containers that the killed one has left."""
    with started_run(tmp_path) as process:
        os.kill(server_of(process.pid), signal.SIGKILL)
        output_until(process, "error: The server was killed by SIGKILL.")
    assert process.returncode == 1
    with started_run(tmp_path) as process:
        process.terminate()
        output_until(process, "no containers remain")
    assert process.returncode == 0
    assert containers_of(tmp_path) == []


@pytest.mark.full
def test_a_server_that_another_process_stops_is_reported(tmp_path: Path) -> None:
    with started_run(tmp_path) as process:
        os.kill(server_of(process.pid), signal.SIGTERM)
        output_until(process, "== The server was stopped by another process (SIGTERM or SIGINT).")
        output_until(process, "no containers remain")
    assert process.returncode == 0
    assert containers_of(tmp_path) == []


FAKE_SERVER = """#!/usr/bin/env python3
import signal, sys
signals = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("listening on http://here", flush=True)
while (number := signal.sigwait(signals)) != signal.SIGINT:
    print(f"got {number}", flush=True)
print(f"ended by {number}", flush=True)
"""
GROUP = """
import os, pathlib, sys
sys.path.insert(0, "dev")
import server_process
server_process.BIN = pathlib.Path(sys.argv[1])
with server_process.ServerGroup() as group:
    server = group.start(dict(os.environ))
    print("ready at", server.wait_until_ready(), flush=True)
    server.wait()
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_ctrl_c_ends_the_drain_and_a_closed_terminal_begins_it(
    tmp_path: Path, first: signal.Signals
) -> None:
    """A server ends its drain only at SIGINT. Servers do not belong to the terminal, so it cannot send them SIGHUP."""
    server = tmp_path / "python-executor-server"
    server.write_text(FAKE_SERVER)
    server.chmod(0o755)
    with started(["python3", "-c", GROUP, str(tmp_path)]) as process:
        output_until(process, "ready at http://here")
        process.send_signal(first)
        output_until(process, f"got {signal.SIGTERM:d}")
        process.send_signal(signal.SIGHUP)
        press_ctrl_c(process)
        output_until(process, f"ended by {signal.SIGINT:d}")
    assert process.returncode == 0


@contextmanager
def started_run(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the script of `make run` until its server has run a first program."""
    command = ["python3", "dev/run.py"]
    with started(command, PYEXEC_PORT="0", PYEXEC_DATA_DIR=str(data)) as process:
        output_until(process, "Press Ctrl-C to stop")
        yield process


def server_of(pid: int) -> int:
    """The id of the server, the only child of the script."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_a_port_in_use_is_named_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_dev("run.py", PYEXEC_PORT=port, PYEXEC_DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert port in done.stderr
    assert containers_of(tmp_path) == []
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", [["run.py"], ["check.py", "test"]])
def test_an_unavailable_docker_is_a_one_line_error(script: list[str]) -> None:
    done = run_dev(*script, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: Cannot connect to Docker at unix:///nowhere/docker.sock: "
        "start it, or unset DOCKER_HOST to use this machine's Docker.\n"
    )


def test_an_invalid_docker_address_is_a_one_line_error() -> None:
    done = run_dev("run.py", DOCKER_HOST="ssh://somewhere")
    assert done.returncode == 1
    assert done.stderr == (
        "error: Invalid Docker address 'ssh://somewhere': expected unix:///path or tcp://host:port.\n"
    )


@pytest.mark.parametrize(
    ("chosen", "used"), [({}, "/usr/bin/python3"), ({"PYTHON": "python3"}, "unoptimized")]
)
def test_the_interpreter_of_the_system_replaces_an_unoptimized_one(chosen: dict[str, str], used: str) -> None:
    show = "import sys; print(sys.executable)"
    unoptimized = (
        "import sys, sysconfig, virtualenv\n"
        "sysconfig.get_config_var = lambda _: ''\n"
        f"sys.executable, sys.argv = 'unoptimized', ['-c', {show!r}]\n"
        f"virtualenv.choose_python()\n{show}"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = subprocess.run(
        ["python3", "-c", unoptimized],
        env={**environment, "PYTHONPATH": "dev", **chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{used}\n"


def test_adding_the_development_tools_keeps_the_virtual_environment(tmp_path: Path) -> None:
    """A server of `make run` may be running from it when `make test` adds them."""
    ensure = (
        "import virtualenv\nfrom pathlib import Path\ncalls = []\n"
        f"virtualenv._STAMP = Path({str(tmp_path / 'installed')!r})\n"
        "virtualenv.print_step = lambda _: None\n"
        "virtualenv.install = lambda *_, **__: calls.append('install')\n"
        "virtualenv._install_requirements = lambda *_, **__: calls.append('add')\n"
        "for dev in (False, False, True, False, True): virtualenv.ensure(dev=dev)\n"
        "print(calls)"
    )
    done = subprocess.run(
        ["python3", "-c", ensure],
        env=os.environ | {"PYTHONPATH": "dev"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['install', 'add']\n"


def test_an_unknown_target_lists_the_known_ones() -> None:
    done = run_dev("check.py", "tset")
    assert done.returncode == 1
    targets = "check, lint, test, soak, test-integrations, bench, docs, audit"
    assert done.stderr == f"error: Unknown target 'tset'; choose from {targets}.\n"


def test_the_size_of_an_image_needs_its_name() -> None:
    done = run_dev("image_size.py")
    assert (done.returncode, done.stderr) == (1, "error: usage: python3 dev/image_size.py NAME\n")
