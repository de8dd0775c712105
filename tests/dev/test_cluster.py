"""`make cluster`: Consul and three servers share their executions and leave nothing behind after Ctrl-C."""

import os
import re
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.containers import containers
from tests.support.terminal import output_until, press_ctrl_c, run_cli, run_dev, started

SMALL = {"PYEXEC_PORT": "0", "PYEXEC_WARM_POOL": "1"}


def processes_of(data: Path) -> dict[int, str]:
    """Find the processes with this directory in their arguments or environment, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has exited meanwhile, or belongs to another user
        if bytes(data) in text:
            found[int(process.name)] = text.decode(errors="replace")
    return found


def kill_replica(data: Path) -> None:
    """Kill the server with this data directory."""
    setting = f"PYEXEC_DATA_DIR={data}\0"
    os.kill(next(pid for pid, text in processes_of(data).items() if setting in text), signal.SIGKILL)


def deployment_at(consul: str) -> str:
    """Return the deployment's name, which labels the servers' containers."""
    with urlopen(f"{consul}/v1/kv/pyexec/deployment?raw") as answer:
        return str(answer.read(), "utf-8")


async def test_three_servers_share_executions_and_leave_nothing_behind(tmp_path: Path) -> None:
    """The second cluster continues with the data of the first one, and loses its Consul."""
    data = tmp_path / "cluster"
    with started(["make", "cluster"], **SMALL, PYEXEC_DATA_DIR=str(data)) as process:
        said = output_until(process, "Press Ctrl-C to stop")
        assert said.count("Hello from a sandbox") == 3
        urls = re.findall(
            r"http://[\d.:]+", re.findall(r"python-executor is running at (.*)\. To try it", said)[0]
        )
        assert len(urls) == len(set(urls)) == 3
        consul = re.findall(r"Consul is running at (http://[\d.:]+);", said)[0]
        deployment = deployment_at(consul)
        execution = run_cli(urls[0], "--async", stdin="print(6 * 7)").strip()
        for url in urls:
            assert run_cli(url, "follow", execution) == "42\n"
            assert run_cli(url, stdin="print('here')") == "here\n"
        run_cli(urls[1], "--async", stdin="import time; time.sleep(1000)")
        kill_replica(data / "replica-2")
        assert urls[1] in output_until(process, "was killed by SIGKILL; the others take over its work")
        assert run_cli(urls[2], stdin="print('still here')") == "still here\n"
        press_ctrl_c(process)
        last_output = output_until(process, "no containers remain")
    assert "Traceback" not in last_output
    assert processes_of(data) == {}
    assert await containers(deployment) == set()

    with started(["python3", "dev/cluster.py"], **SMALL, PYEXEC_DATA_DIR=str(data)) as process:
        said = output_until(process, "Press Ctrl-C to stop")
        url = re.findall(r"python-executor is running at (http://[\d.:]+),", said)[0]
        assert run_cli(url, "logs", execution) == "42\n", "executions survive a restart of the cluster"
        consul = next(pid for pid, text in processes_of(data).items() if "consul\0agent" in text)
        os.kill(consul, signal.SIGKILL)
        output_until(process, "error: Consul was killed by SIGKILL.")  # without Consul, all servers stop
    assert process.returncode == 1
    assert processes_of(data) == {}


@pytest.mark.full
async def test_sigterm_to_the_script_stops_all_servers(tmp_path: Path) -> None:
    data = tmp_path / "cluster"
    with started(["python3", "dev/cluster.py"], **SMALL, PYEXEC_DATA_DIR=str(data)) as process:
        said = output_until(process, "Press Ctrl-C to stop")
        deployment = deployment_at(re.findall(r"Consul is running at (http://[\d.:]+);", said)[0])
        process.terminate()
        output_until(process, "no containers remain")
    assert process.returncode == 0
    assert processes_of(data) == {}
    assert await containers(deployment) == set()


@pytest.mark.full
def test_an_interrupted_start_leaves_no_process(tmp_path: Path) -> None:
    with started(
        ["python3", "dev/cluster.py"], **SMALL, PYEXEC_DATA_DIR=str(tmp_path / "cluster")
    ) as process:
        output_until(process, "Running a first program")
        press_ctrl_c(process)
        assert "Press Ctrl-C to stop" not in output_until(process, "no containers remain")
    assert processes_of(tmp_path / "cluster") == {}


def test_a_port_in_use_is_a_one_line_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_dev("cluster.py", PYEXEC_PORT=str(port - 3))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"error: Cannot bind 127\.0\.0\.1:\d+: Address already in use\. "
        r"`make cluster` uses 4 ports, starting at PYEXEC_PORT\.\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"PYEXEC_PORT": "http"}, "Invalid PYEXEC_PORT 'http': expected an integer from 1 to 65532"),
        ({"PYEXEC_PORT": "65533"}, "Invalid PYEXEC_PORT '65533': expected an integer from 1 to 65532"),
        ({"PYEXEC_CONSUL_ADDR": "a:1"}, "starts its own Consul: unset PYEXEC_CONSUL_ADDR."),
    ],
)
def test_an_invalid_setting_is_a_one_line_error(settings: dict[str, str], message: str) -> None:
    done = run_dev("cluster.py", **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
