"""`make cluster`: one Consul and three servers on this machine, which share their executions and one Docker."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from pathlib import Path

import consul
import first_run
from console import SetupError, print_step, run_main
from consul_agent import ConsulAgent
from docker_api import DockerEngine
from provision import provision
from server_process import ServerGroup, ServerProcess
from subprocesses import RUN_DIR

_SIZE = 3
_PREFIX = "pyexec"
_USUAL_PORT = 8080


def main() -> int:
    _refuse_another_consul()
    ports = _ports()
    machine = provision(dev=False)
    binary = consul.ensure()
    home = Path(os.environ.get("PYEXEC_DATA_DIR", RUN_DIR / "cluster")).resolve()
    environment = first_run.environment(machine)
    deployment = None
    with ConsulAgent(binary, home / "consul", ports[_SIZE:]) as agent, ServerGroup() as servers:
        started = []
        for number, port in enumerate(ports[:_SIZE], 1):
            own = _settings(agent, port, home / f"replica-{number}")
            started.append(servers.start({**environment, **own}, home / f"replica-{number}.log"))
        found = [(server, server.wait_until_ready(agent)) for server in started]
        replicas = {url: server for server, url in found if url is not None}
        if not servers.stopping:
            deployment = agent.value(f"{_PREFIX}/deployment")
            try:
                for url, server in replicas.items():
                    first_run.run_first_program(server, url, environment)
                if not servers.stopping:
                    _introduce(list(replicas), agent, home)
                _watch(replicas, agent)
            finally:
                servers.end()
                _remove_programs(machine.engine, deployment)
    if deployment is not None:  # else it was stopped before it had begun
        stopped = f"Stopped {_SIZE} servers and Consul; no process is left"
        first_run.check_no_containers_left(machine.engine, deployment, stopped)
    return 0


def _settings(agent: ConsulAgent, port: int, data: Path) -> dict[str, str]:
    """What one server has of its own; it advertises the address it listens on."""
    return {
        "PYEXEC_PORT": str(port),
        "PYEXEC_DATA_DIR": str(data),
        "PYEXEC_ADVERTISE_ADDR": "",
        "PYEXEC_CONSUL_ADDR": agent.address,
        "PYEXEC_CONSUL_PREFIX": _PREFIX,
    }


def _introduce(urls: list[str], agent: ConsulAgent, home: Path) -> None:
    print_step(f"Consul answers at http://{agent.address}; the logs of all are in {home}")
    print_step(f"python-executor listens on {', '.join(urls)}; try any of them, in another terminal:")
    first_run.print_example(urls[0])


def _watch(replicas: dict[str, ServerProcess], agent: ConsulAgent) -> None:
    """Return once all servers have stopped. One that ends before leaves its work to the others; a SetupError if
    none is left, or no Consul."""
    running = dict(replicas)
    stopping = False
    while running:
        watched: list[ConsulAgent | ServerProcess] = [agent, *running.values()]
        ready, _, _ = select.select(watched, [], [])
        if agent in ready:
            raise agent.failure()
        for url, server in replicas.items():
            if server in ready:
                code = server.wait()
                del running[url]
                stopping = server.stopping
                if not stopping:
                    print_step(
                        f"The server at {url} ended by itself, with {code}; the others take over its work"
                    )
    if not stopping:
        raise SetupError("All servers ended by themselves.")


def _remove_programs(engine: DockerEngine, deployment: str) -> None:
    """Remove the programs that outlived the servers' patience: a stopping server leaves what it runs to
    the others, and here there are none."""
    left = first_run.containers(engine, deployment)
    for container in left:
        engine.remove(container)
    if left:
        print_step(f"Removed containers in which programs still ran: {len(left)}")


def _refuse_another_consul() -> None:
    named = sorted(name for name in os.environ if name.startswith("PYEXEC_CONSUL_"))
    if named:
        raise SetupError(f"`make cluster` starts a Consul of its own: unset {', '.join(named)}.")


def _ports() -> list[int]:
    """The servers' ports and that of Consul's HTTP API, from PYEXEC_PORT on (0: free ones), then two free ones
    that Consul takes for itself. A SetupError if one is in use."""
    text = os.environ.get("PYEXEC_PORT", str(_USUAL_PORT))
    last = 65535 - _SIZE
    if not text.isdecimal() or int(text) > last:
        raise SetupError(
            f"PYEXEC_PORT is {text!r}; allowed is a whole number up to {last}, or 0 for free ports."
        )
    first = int(text)
    wanted = [first + number if first else 0 for number in range(_SIZE + 1)]
    with contextlib.ExitStack() as held:  # all at once, so that no free one is given twice
        return [held.enter_context(_held(port)).getsockname()[1] for port in [*wanted, 0, 0]]


def _held(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise SetupError(
            f"Port {port} of 127.0.0.1 cannot be used: {why}. "
            f"`make cluster` takes {_SIZE + 1} ports from PYEXEC_PORT on."
        ) from error


if __name__ == "__main__":
    sys.exit(run_main(main))
