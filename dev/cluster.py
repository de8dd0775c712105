"""`make cluster`: start Consul and three servers on this machine that share their executions and one Docker Engine."""

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
from subprocesses import RUN_DIR, describe_exit

_SERVERS = 3
_CONSUL_PREFIX = "pyexec"
_DEFAULT_PORT = 8080


def main() -> int:
    _check_no_other_consul()
    ports = _ports()
    machine = provision(dev=False)
    binary = consul.ensure()
    home = Path(os.environ.get("PYEXEC_DATA_DIR", RUN_DIR / "cluster")).resolve()
    environment = first_run.server_environment(machine)
    deployment = None
    with ConsulAgent(binary, home / "consul", ports[_SERVERS:]) as agent, ServerGroup() as servers:
        replicas = _start_replicas(servers, agent, ports[:_SERVERS], home, environment)
        if not servers.stopping:
            deployment = agent.read_key(f"{_CONSUL_PREFIX}/deployment")
            try:
                for url, server in replicas.items():
                    first_run.run_first_program(server, url, environment)
                if not servers.stopping:
                    _print_addresses(list(replicas), agent, home)
                _wait_for_exit(replicas, agent)
            finally:
                servers.stop_and_wait()
                _remove_programs(machine.engine, deployment)
    if deployment is not None:  # None if the servers were stopped during their start
        stopped = f"Stopped {_SERVERS} servers and Consul"
        first_run.check_no_containers_left(machine.engine, deployment, stopped)
    return 0


def _start_replicas(
    servers: ServerGroup, agent: ConsulAgent, ports: list[int], home: Path, environment: dict[str, str]
) -> dict[str, ServerProcess]:
    """Start a server on each port; return those that are ready, by URL."""
    started = []
    for number, port in enumerate(ports, 1):
        settings = {
            "PYEXEC_PORT": str(port),
            "PYEXEC_DATA_DIR": str(home / f"replica-{number}"),
            "PYEXEC_ADVERTISE_ADDR": "",  # the default: the address it listens on
            "PYEXEC_CONSUL_ADDR": agent.address,
            "PYEXEC_CONSUL_PREFIX": _CONSUL_PREFIX,
        }
        started.append(servers.start({**environment, **settings}, home / f"replica-{number}.log"))
    urls = [(server.wait_until_ready(agent), server) for server in started]
    return {url: server for url, server in urls if url is not None}


def _print_addresses(urls: list[str], agent: ConsulAgent, home: Path) -> None:
    print_step(f"Consul is running at http://{agent.address}; all logs are in {home}")
    print_step(f"python-executor is running at {', '.join(urls)}. To try it, in another terminal:")
    first_run.print_example(urls[0])


def _wait_for_exit(replicas: dict[str, ServerProcess], agent: ConsulAgent) -> None:
    """Wait until all servers have exited, and print the output of each, and why it exited without being asked to.

    Raise a `SetupError` if Consul exits, or if all servers exit unexpectedly and one has failed."""
    running = dict(replicas)
    stopping = failed = False
    while running:
        watched: list[ConsulAgent | ServerProcess] = [agent, *running.values()]
        ready, _, _ = select.select(watched, [], [])
        if agent in ready:
            raise agent.exit_error()
        for url, server in replicas.items():
            if server in ready:
                code = server.wait()
                failed = failed or code != 0
                del running[url]
                stopping = server.stopping
                if not stopping:
                    print_step(f"The server at {url} {describe_exit(code)}; the others take over its work")
    if failed and not stopping:
        raise SetupError("All servers have exited.")


def _remove_programs(engine: DockerEngine, deployment: str) -> None:
    """Remove the containers of programs that are still running.

    A server that stops leaves them to the other servers of its cluster, but here no server remains."""
    left = first_run.list_containers(engine, deployment)
    for container in left:
        engine.remove(container)
    if left:
        print_step(f"Removed {len(left)} containers with running programs")


def _check_no_other_consul() -> None:
    configured = sorted(name for name in os.environ if name.startswith("PYEXEC_CONSUL_"))
    if configured:
        raise SetupError(f"`make cluster` starts its own Consul: unset {', '.join(configured)}.")


def _ports() -> list[int]:
    """Return free ports: for the servers and Consul's HTTP API from PYEXEC_PORT on, and two more for Consul.

    With PYEXEC_PORT=0, all of them are chosen by the system."""
    text = os.environ.get("PYEXEC_PORT", str(_DEFAULT_PORT))
    last = 65535 - _SERVERS
    if not text.isdecimal() or int(text) > last:
        raise SetupError(
            f"Invalid PYEXEC_PORT {text!r}: expected an integer from 1 to {last}, or 0 for any free ports."
        )
    first = int(text)
    wanted = [first + number if first else 0 for number in range(_SERVERS + 1)]
    with (
        contextlib.ExitStack() as stack
    ):  # bind all before closing any: the system must not return one port twice
        return [stack.enter_context(_bind(port)).getsockname()[1] for port in [*wanted, 0, 0]]


def _bind(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SetupError(
            f"Cannot bind 127.0.0.1:{port}: {reason}. "
            f"`make cluster` uses {_SERVERS + 1} ports, starting at PYEXEC_PORT."
        ) from error


if __name__ == "__main__":
    sys.exit(run_main(main))
