"""`make cluster` as a newcomer meets it: one Consul, three servers, and nothing of them left after Ctrl-C."""

import os
import re
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.containers import containers
from tests.support.terminal import press_ctrl_c, run_cli, run_dev, said_until, started

SMALL = {"PYEXEC_PORT": "0", "PYEXEC_WARM_POOL": "1"}


def processes_of(data: Path) -> dict[int, str]:
    """Every process that has this directory among its arguments or in its environment, by its id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile, or is none of ours
        if bytes(data) in known:
            found[int(process.name)] = known.decode(errors="replace")
    return found


def kill_replica(data: Path) -> None:
    """Ends the server that keeps its files there, as a crash would."""
    setting = f"PYEXEC_DATA_DIR={data}\0"
    os.kill(next(pid for pid, known in processes_of(data).items() if setting in known), signal.SIGKILL)


def deployment_at(consul: str) -> str:
    """The name by which the servers mark their containers."""
    with urlopen(f"{consul}/v1/kv/pyexec/deployment?raw") as answer:
        return str(answer.read(), "utf-8")


async def test_three_servers_share_what_runs_and_leave_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "cluster"
    with started(["make", "cluster"], **SMALL, PYEXEC_DATA_DIR=str(data)) as process:
        said = said_until(process, "Ctrl-C stops it")
        assert said.count("Hello from a sandbox") == 3
        urls = re.findall(r"http://[\d.:]+", re.findall(r"listens on (.*);", said)[0])
        assert len(urls) == len(set(urls)) == 3
        consul = re.findall(r"Consul answers at (http://[\d.:]+);", said)[0]
        deployment = deployment_at(consul)
        execution = run_cli(urls[0], "--async", stdin="print(6 * 7)").strip()
        for url in urls:
            assert run_cli(url, "follow", execution) == "42\n"
            assert run_cli(url, stdin="print('here')") == "here\n"
        run_cli(urls[1], "--async", stdin="import time; time.sleep(1000)")
        kill_replica(data / "replica-2")
        assert urls[1] in said_until(process, "ended by itself, with -9; the others take over its work")
        assert run_cli(urls[2], stdin="print('still here')") == "still here\n"
        press_ctrl_c(process)
        farewell = said_until(process, "no container is left")
    assert "Traceback" not in farewell
    assert processes_of(data) == {}
    assert await containers(deployment) == set()

    with started(["python3", "dev/cluster.py"], **SMALL, PYEXEC_DATA_DIR=str(data)) as process:
        said = said_until(process, "Ctrl-C stops it")
        url = re.findall(r"listens on (http://[\d.:]+),", said)[0]
        assert run_cli(url, "logs", execution) == "42\n", "what was run before is still known"
        process.terminate()
        said_until(process, "no container is left")
    assert process.returncode == 0
    assert processes_of(data) == {}
    assert await containers(deployment) == set()


def test_an_interrupted_start_leaves_no_process(tmp_path: Path) -> None:
    with started(
        ["python3", "dev/cluster.py"], **SMALL, PYEXEC_DATA_DIR=str(tmp_path / "cluster")
    ) as process:
        said_until(process, "Running a first program")
        press_ctrl_c(process)
        assert "Ctrl-C stops it" not in said_until(process, "no container is left")
    assert processes_of(tmp_path / "cluster") == {}


def test_a_consul_that_ends_stops_all_and_is_named(tmp_path: Path) -> None:
    data = tmp_path / "cluster"
    with started(["python3", "dev/cluster.py"], **SMALL, PYEXEC_DATA_DIR=str(data)) as process:
        said_until(process, "Ctrl-C stops it")
        consul = next(pid for pid, known in processes_of(data).items() if "consul\0agent" in known)
        os.kill(consul, signal.SIGKILL)
        said_until(process, "error: Consul ended by itself, with -9")
    assert process.returncode == 1
    assert processes_of(data) == {}


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_dev("cluster.py", PYEXEC_PORT=str(port - 3))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"error: Port \d+ of 127.0.0.1 cannot be used: Address already in use. "
        r"`make cluster` takes 4 ports from PYEXEC_PORT on.\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"PYEXEC_PORT": "http"}, "PYEXEC_PORT is 'http'; allowed is a whole number up to 65532"),
        ({"PYEXEC_PORT": "65533"}, "PYEXEC_PORT is '65533'; allowed is a whole number up to 65532"),
        ({"PYEXEC_CONSUL_ADDR": "a:1"}, "starts a Consul of its own: unset PYEXEC_CONSUL_ADDR."),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(settings: dict[str, str], sentence: str) -> None:
    done = run_dev("cluster.py", **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
