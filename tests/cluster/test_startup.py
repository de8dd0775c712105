"""Test a server whose Consul or Docker is missing or wrong, and one that loses Consul."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.api import api_of
from tests.support.cases import sampled
from tests.support.cluster import running_cluster
from tests.support.consul import ACL, Agent, dev_agent, durable_agent, free_ports, new_agent, running
from tests.support.server import PROGRAM, running_server
from tests.support.terminal import output_until, run_cli, started

pytestmark = pytest.mark.independent


class Waiting:
    """A server process that may not serve yet, and the output that was read from it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self.said = ""
        self._process = process

    def until(self, words: str) -> None:
        self.said += output_until(self._process, words)

    def stop(self) -> int:
        """Send SIGTERM, wait until the server has exited, and return its exit code."""
        self._process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait until the server has exited, and return its exit code."""
        assert self._process.stdout is not None
        self.said += self._process.stdout.read()
        return self._process.wait()

    def check_serves(self) -> None:
        assert ready(self.url) == (200, "")
        assert run_cli(self.url, stdin="print(6 * 7)") == "42\n"


@contextmanager
def waiting(directory: Path, image: str, **settings: str) -> Iterator[Waiting]:
    port = str(free_ports(["server"])["server"])
    own = {
        "port": port,
        "data_dir": str(directory / "data"),
        "default_image": image,
        "warm_pool": "1",
        **settings,
    }
    environment = {f"PYEXEC_{name.upper()}": value for name, value in own.items()}
    with started([PROGRAM], **environment) as process:
        yield Waiting(process, f"http://127.0.0.1:{port}")


def ready(url: str) -> tuple[int, str]:
    """Return the status and the error of /ready."""
    try:
        with urlopen(f"{url}/ready") as answer:
            return answer.status, json.load(answer).get("error", "")
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def end_sessions(agent: Agent) -> None:
    """End all Consul sessions, as their TTL does 17 to 20 s after Consul is back."""
    with urlopen(f"http://{agent.address}/v1/session/list") as answer:
        sessions = json.load(answer)
    for session in sessions:
        url = f"http://{agent.address}/v1/session/destroy/{session['ID']}"
        urlopen(Request(url, method="PUT")).close()


def put(agent: Agent, key: str, value: bytes) -> None:
    urlopen(Request(f"http://{agent.address}/v1/kv/{key}", value, method="PUT")).close()


def test_a_server_waits_for_consul_and_logs_it_once(image: str, tmp_path: Path) -> None:
    agent = new_agent(tmp_path / "consul", bootstrap_expect=1)
    with waiting(tmp_path, image, consul_addr=agent.address) as server:
        server.until("cannot start yet")
        status, missing = ready(server.url)
        assert status == 503
        assert f"Consul at http://{agent.address} cannot be reached" in missing
        urlopen(f"{server.url}/health").close()
        with running(agent):
            server.until("listening on")
            server.check_serves()
            assert server.stop() == 0
    assert server.said.count("cannot be reached") == 1
    assert "Traceback" not in server.said


def test_a_server_waits_for_docker_and_logs_it_once(image: str, tmp_path: Path) -> None:
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    socket = tmp_path / "docker.sock"
    with (
        dev_agent(tmp_path / "consul") as agent,
        waiting(tmp_path, image, consul_addr=agent.address, docker_host=f"unix://{socket}") as server,
    ):
        server.until("cannot start yet")
        status, missing = ready(server.url)
        assert (status, "Docker" in missing) == (503, True)
        socket.symlink_to(engine)
        server.until("listening on")
        server.check_serves()
        assert server.stop() == 0
    assert server.said.count("cannot start yet") == 1


def test_a_server_that_waits_for_consul_stops_at_sigterm(image: str, tmp_path: Path) -> None:
    with waiting(tmp_path, image, consul_addr="127.0.0.1:1") as server:
        server.until("cannot start yet")
        assert server.stop() == 0
    assert "Traceback" not in server.said


@sampled("clustered", [False, True], every=2)
def test_the_data_directory_is_private(image: str, tmp_path: Path, clustered: bool) -> None:
    """It contains requests, environment variables and output of programs."""
    with ExitStack() as stack:
        settings = {}
        if clustered:
            settings["consul_addr"] = stack.enter_context(dev_agent(tmp_path / "consul")).address
        server = stack.enter_context(waiting(tmp_path, image, **settings))
        server.until("listening on")
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert server.stop() == 0


def test_an_invalid_data_directory_is_a_one_line_error(image: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with waiting(tmp_path, image, consul_addr="127.0.0.1:1") as server:
        server.until("it must be a directory that the server may write to")
        assert server.ended() == 1
    assert server.said.count("\n") == 1


def test_an_invalid_consul_address_is_a_one_line_error(image: str, tmp_path: Path) -> None:
    with waiting(tmp_path, image, consul_addr="nowhere") as server:
        server.until("PYEXEC_CONSUL_ADDR is 'nowhere'; allowed are host:port")
        assert server.ended() == 1
    assert server.said.count("\n") == 1


@sampled("token", ["", "00000000-0000-0000-0000-0000000000ff"], every=2)
def test_a_consul_token_without_rights_is_a_one_line_error(image: str, tmp_path: Path, token: str) -> None:
    with (
        dev_agent(tmp_path / "consul", acl=ACL) as agent,
        waiting(tmp_path, image, consul_addr=agent.address, consul_token=token) as server,
    ):
        server.until("cannot start yet")
        assert ready(server.url) == (
            503,
            "the server is starting: the Consul token has no permission for pyexec/deployment; see "
            "nomad/consul-policy.hcl",
        )
        assert server.stop() == 0
    error, stopped = server.said.splitlines()
    assert "the Consul token has no permission" in error
    assert stopped.endswith("stopped")


def test_foreign_keys_in_consul_are_ignored_and_logged_once(image: str, tmp_path: Path) -> None:
    foreign = [
        "x",
        "inflight/x",
        "status/x",
        "replicas/x",
        "inbox/x",
        "retired/x",
        "executions/x/events/000001",
    ]
    with (
        dev_agent(tmp_path / "consul") as agent,
        waiting(tmp_path, image, consul_addr=agent.address) as server,
    ):
        for key in foreign:
            put(agent, f"pyexec/{key}", b"foreign")
        server.until("listening on")
        server.check_serves()
        assert server.stop() == 0
        with urlopen(f"http://{agent.address}/v1/kv/pyexec/?keys") as answer:
            assert {f"pyexec/{key}" for key in foreign} <= set(json.load(answer))
    assert server.said.count("ignoring unrecognized key inflight/x") == 1


def test_a_consul_prefix_of_another_program_is_a_one_line_error(image: str, tmp_path: Path) -> None:
    with dev_agent(tmp_path / "consul") as agent:
        put(agent, "pyexec/deployment", b"\xff of theirs")
        with waiting(tmp_path, image, consul_addr=agent.address) as server:
            server.until("another program uses this prefix")
            assert server.ended() == 1
    assert server.said.count("\n") == 1


@pytest.mark.full
def test_a_server_survives_an_outage_of_consul(image: str, tmp_path: Path) -> None:
    """The server serves again when Consul is back. See also tests/cluster/test_consul_outage.py."""
    with (
        durable_agent(tmp_path / "consul") as agent,
        waiting(tmp_path, image, consul_addr=agent.address, stop_timeout="1") as server,
    ):
        server.until("listening on")
        server.check_serves()
        agent.kill()
        status, missing = ready(server.url)
        assert (status, "event log: Consul" in missing) == (503, True)
        server.until("Consul session lost")
        agent.start()
        agent.wait_ready()
        server.until("this replica is a member again")
        server.check_serves()
        assert server.stop() == 0
    check_log(server)


def test_a_server_shuts_down_without_consul(image: str, tmp_path: Path) -> None:
    """The running program is not lost: another server adopts it when Consul is back."""
    with (
        durable_agent(tmp_path / "consul") as agent,
        waiting(tmp_path, image, consul_addr=agent.address, stop_timeout="1") as server,
    ):
        server.until("listening on")
        program = "import time; time.sleep(1); print('whole')"
        execution = run_cli(server.url, "--async", stdin=program).strip()
        agent.kill()
        assert server.stop() == 0
        agent.start()
        agent.wait_ready()
        end_sessions(agent)
        with running_server(tmp_path / "next", image, consul_addr=agent.address, warm_pool="1") as following:
            assert run_cli(following.url, "follow", execution) == "whole\n"
    check_log(server)


def check_log(server: Waiting) -> None:
    """Check that an outage causes a few messages, not one every second."""
    assert "Traceback" not in server.said
    messages = Counter(line.partition(" ")[2].partition(" ")[2] for line in server.said.splitlines())
    assert max(messages.values()) <= 4, messages


async def test_other_replicas_finish_the_executions_of_a_stopping_one(image: str, tmp_path: Path) -> None:
    """The others run the executions that have not started, and one of them adopts the running ones."""
    with dev_agent(tmp_path / "consul") as agent:
        async with running_cluster(tmp_path, image, [agent], 3, stop_timeout="0") as cluster:
            one, two, three = cluster.replicas
            stopping = one.server
            assert stopping is not None
            async with api_of(one.url) as api:
                ids = [await api.accepted("import time; time.sleep(2); print('whole')") for _ in range(8)]
            await one.term()
            assert stopping.process.returncode == 0
            async with api_of(two.url) as at_two, api_of(three.url) as at_three:
                for number, execution in enumerate(ids):
                    result = await (at_two, at_three)[number % 2].ended(execution)
                    assert (result["status"], result["stdout"]) == ("completed", "whole\n"), result
            await cluster.stop()
