"""Real Consul agents, as child processes on free ports of 127.0.0.1."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from attrs import define, field

from tests.support.paths import ROOT

START_SECONDS = 60
STOP_SECONDS = 30
MASTER = "00000000-0000-0000-0000-000000000001"
ACL = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER}}
"""An ACL configuration in which only the token MASTER has permissions."""
PORTS = ("http", "server", "serf_lan", "serf_wan")


@cache
def binary() -> Path:
    """Return the path of the Consul binary; download it if necessary."""
    command = [sys.executable, str(ROOT / "dev" / "consul.py")]
    return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@define
class Agent:
    """One agent. It can be stopped, killed, suspended and restarted. With a data directory, it keeps its data."""

    directory: Path
    ports: Mapping[str, int]
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    shows_nodes: bool = True
    """False with an ACL, because the test has no token to list the nodes."""
    _listening: threading.Event = field(factory=threading.Event)
    _reader: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The address of its HTTP API."""
        return f"127.0.0.1:{self.ports['http']}"

    @property
    def log(self) -> str:
        """The text of its log."""
        return (self.directory / "consul.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the agent without waiting for it."""
        self._listening.clear()
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._keep_log, args=(self.process,), name="consul's log")
        self._reader.start()

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        """Copy the agent's output to its log, and set `_listening` when its HTTP API is up."""
        if process.stdout is None:
            raise RuntimeError("Consul has no standard output")
        with process.stdout, (self.directory / "consul.log").open("a", buffering=1) as log:
            for line in process.stdout:
                log.write(line)
                if "Started HTTP" in line:
                    self._listening.set()

    def kill(self) -> None:
        """Kill the agent with SIGKILL, like a crash."""
        if self.process is not None and self._reader is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self._reader.join(STOP_SECONDS)
            self.process = None

    def wait_ready(self) -> None:
        """Wait until the agent answers, has a leader and is a registered node. Before that, it creates no sessions."""
        if not self._listening.wait(START_SECONDS):
            raise RuntimeError(f"Consul did not start: {self.log}")
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                # Consul holds a request for some seconds until there is a leader.
                urlopen(f"http://{self.address}/v1/session/list", timeout=START_SECONDS).close()
            except HTTPError as error:
                with error:
                    if error.code == HTTPStatus.FORBIDDEN:
                        return
                    if time.monotonic() > until:
                        raise RuntimeError(f"Consul elects no leader: {self.log}") from error
            else:
                break
        if self.shows_nodes:
            self._wait_registered(until)

    def _wait_registered(self, until: float) -> None:
        index = "0"
        while time.monotonic() < until:
            node = f"http://{self.address}/v1/catalog/node/{quote(self.directory.name)}?index={index}&wait=5s"
            with urlopen(node, timeout=START_SECONDS) as answer:
                index = answer.headers["X-Consul-Index"]
                if json.load(answer) is not None:
                    return
        raise RuntimeError(f"Consul has not registered its own node: {self.log}")

    def is_leader(self) -> bool:
        """Return True if the agent leads its cluster."""
        with urlopen(f"http://{self.address}/v1/status/leader") as answer:
            return bool(json.load(answer) == f"127.0.0.1:{self.ports['server']}")


WORKERS_MAX = 12
_given: set[int] = set()


def free_ports(names: Sequence[str]) -> Mapping[str, int]:
    """Return a free port for each name. No test of any worker has got the same port before, and no connection can get
    it by chance, because it is below the kernel's ephemeral range."""
    worker = (
        int(os.environ.get("PYTEST_XDIST_WORKER", f"gw{WORKERS_MAX - 1}").removeprefix("gw")) % WORKERS_MAX
    )
    candidates = iter(random.sample(range(20_000 + worker, 32_000, WORKERS_MAX), 1000))
    return {name: next(filter(_is_free, candidates)) for name in names}


def _is_free(port: int) -> bool:
    if port in _given:
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    _given.add(port)
    return True


def new_agent(directory: Path, *arguments: str, tls: bool = False, **config: object) -> Agent:
    """Return an agent that is not started yet: a server with its data under `directory`. `config` is added to its
    configuration. With `tls`, it has an HTTPS port, too."""
    directory.mkdir(parents=True, exist_ok=True)
    ports = free_ports([*PORTS, "https"] if tls else PORTS)
    off = {"dns": -1, "grpc": -1, "https": -1}
    written = {
        "data_dir": str(directory / "data"),
        "node_name": directory.name,
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "server": True,
        "log_level": "info",
        "disable_update_check": True,
        "disable_keyring_file": True,
        "leave_on_terminate": False,
        "performance": {"raft_multiplier": 1},
        **config,
        "ports": {**off, **ports},
    }
    file = directory / "config.json"
    file.write_text(json.dumps(written))
    command = [str(binary()), "agent", f"-config-file={file}", *arguments]
    return Agent(directory, ports, command, shows_nodes="acl" not in config)


def make_certificates(directory: Path) -> None:
    """Create a certificate authority and a certificate for localhost: `consul-agent-ca.pem`, `dc1-server-consul-0.pem`
    and `dc1-server-consul-0-key.pem`."""
    directory.mkdir()
    for command in (["tls", "ca", "create"], ["tls", "cert", "create", "-server"]):
        subprocess.run([binary(), *command], cwd=directory, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def running(*agents: Agent) -> Iterator[None]:
    """Start the agents and wait until they are ready; kill them at the end."""
    try:
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.wait_ready()
        yield
    finally:
        for agent in agents:
            agent.kill()


@contextmanager
def dev_agent(directory: Path, *, tls: bool = False, **config: object) -> Iterator[Agent]:
    """Run a single server that keeps its data in memory, and starts fast."""
    agent = new_agent(directory, "-dev", tls=tls, **config)
    with running(agent):
        yield agent


@contextmanager
def durable_agent(directory: Path, **config: object) -> Iterator[Agent]:
    """Run a single server that keeps its data on disk."""
    agent = new_agent(directory, bootstrap_expect=1, **config)
    with running(agent):
        yield agent


@contextmanager
def cluster(directory: Path, size: int = 3) -> Iterator[Sequence[Agent]]:
    """Run several servers that elect a leader and keep their data on disk."""
    agents = [new_agent(directory / f"server-{n}", bootstrap_expect=size) for n in range(size)]
    join = [f"-retry-join=127.0.0.1:{agent.ports['serf_lan']}" for agent in agents]
    for agent in agents:
        agent.command = [*agent.command, *join, "-retry-interval=1s"]
    with running(*agents):
        yield agents
