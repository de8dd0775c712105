"""There is one network for each name, even if servers create it together or an operator removes it."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiodocker import Docker

from tests.isolation.networks import NETWORK, bridges
from tests.operations.preflight import check
from tests.support.api import api_of
from tests.support.cases import sampled
from tests.support.images import docker
from tests.support.server import Server, running_server

pytestmark = pytest.mark.independent

PRINT_INTERFACE_COUNT = "import socket; print(len(socket.if_nameindex()))"
LOOPBACK_AND_ONE = "2\n"

MakeServer = Callable[[int], Server]


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """Yield names for a run network and a setup network; remove the networks at the end."""
    number = secrets.token_hex(4)
    both = f"pyexec-test-run-{number}", f"pyexec-test-setup-{number}"
    yield both
    if left := networks(*both):
        docker("network", "rm", *left)


@pytest.fixture
def start(image: str, tmp_path: Path, names: tuple[str, str]) -> Iterator[MakeServer]:
    """Return a function that starts a server on these networks, in a directory for each number."""
    run, setup = names
    with ExitStack() as stack:

        def make(number: int) -> Server:
            settings = {"run_network": run, "setup_network": setup, "warm_pool": "0"}
            return stack.enter_context(running_server(tmp_path / f"data-{number}", image, **settings))

        yield make


def networks(*names: str) -> list[str]:
    """Return the ids of all networks with these names."""
    listed = docker("network", "ls", "--no-trunc", "--format", "{{.Name}}={{.ID}}")
    return [network.partition("=")[2] for network in listed if network.partition("=")[0] in names]


async def check_network(server: Server) -> None:
    """Check that a program with network has one, and that an environment is built with one."""
    async with api_of(server.url) as api:
        ran = await api.run(PRINT_INTERFACE_COUNT, config=NETWORK)
        assert (ran["status"], ran["stdout"]) == ("completed", LOOPBACK_AND_ONE), ran
        unique = secrets.token_hex(8)  # makes another environment
        command = f"python3 -c '{PRINT_INTERFACE_COUNT}' >/opt/interfaces; : {unique}"
        read = await api.run("print(open('/opt/interfaces').read(), end='')", pre_commands=[command])
        assert (read["status"], read["stdout"]) == ("completed", LOOPBACK_AND_ONE), read


@sampled("count", [2, 4], every=2)
async def test_servers_that_start_together_create_one_network(
    names: tuple[str, str], start: MakeServer, count: int
) -> None:
    with ThreadPoolExecutor(count) as threads:
        servers = list(threads.map(start, range(count)))
    assert [len(networks(name)) for name in names] == [1, 1]
    await check_network(servers[0])


async def test_a_pruned_network_is_created_again(names: tuple[str, str], start: MakeServer) -> None:
    """Its bridge gets the same name, so that firewall rules stay valid."""
    server = start(0)
    before = networks(*names), bridges(*names)
    docker("network", "rm", *names)
    await check_network(server)
    assert bridges(*names) == before[1]
    assert set(networks(*names)).isdisjoint(before[0])


@pytest.mark.full
async def test_duplicate_networks_are_reported(image: str, tmp_path: Path, names: tuple[str, str]) -> None:
    """An operator may have created them by hand. Docker starts no container in either."""
    run, _ = names
    async with Docker() as engine:
        for _ in range(2):
            await engine.networks.create({"Name": run, "CheckDuplicate": False})
    first, second = networks(run)
    settings = {"run_network": run, "setup_network": "none"}
    checked = check(image, tmp_path / "check", **settings)
    (text,) = checked("networks", "failed")
    assert f"Docker has 2 networks named {run}; keep only one: docker network rm " in text
    extra = next(word for word in text.replace(";", " ").split() if word in (first[:12], second[:12]))
    docker("network", "rm", extra)
    assert check(image, tmp_path / "check", **settings)("networks", "failed") == []
