"""Test programs with network: what they reach, what the operator is warned of, and the firewall that blocks it."""

import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from tests.isolation.listeners import connections, listening
from tests.isolation.networks import NETWORK, addresses_in, firewall, named_container, network_names, rules
from tests.isolation.test_isolation_check import refusal, warnings_of
from tests.support.api import Api, api_of
from tests.support.containers import gateway
from tests.support.index import own_network
from tests.support.server import Server, running_server

HINT = "the network is disabled in this run"
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("reached")
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def made(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, tuple[str, str]]]:
    """Run a server that creates its networks and listens at all addresses, so that its networks reach its port."""
    with network_names() as (run, setup):
        settings = {"host": "0.0.0.0", "run_network": run, "setup_network": setup, "warm_pool": "1"}
        with running_server(tmp_path_factory.mktemp("networked") / "data", image, **settings) as server:
            port = server.url.rpartition(":")[2]
            yield evolve(server, url=f"http://127.0.0.1:{port}"), (run, setup)


@pytest.fixture(scope="module")
def networked(made: tuple[Server, tuple[str, str]]) -> Server:
    return made[0]


@pytest.fixture(scope="module")
def networks(made: tuple[Server, tuple[str, str]]) -> tuple[str, str]:
    return made[1]


@pytest.fixture
async def api(networked: Server) -> AsyncIterator[Api]:
    async with api_of(networked.url) as client:
        yield client


async def test_a_server_that_everyone_may_use_logs_a_warning(networked: Server) -> None:
    assert "can run programs; set PYEXEC_API_TOKENS" in networked.log.read_text()


async def test_connections_without_network_fail_at_once_with_a_hint(api: Api) -> None:
    result = await api.run("import socket; socket.create_connection(('203.0.113.1', 80))")
    assert (result["status"], result["error_type"]) == ("completed", "OSError"), result
    assert result["error"].startswith("[Errno 101] Network is unreachable (")
    assert HINT in result["error"]
    assert result["duration_ms"] < 5000


async def test_name_lookups_without_network_fail_at_once_with_a_hint(api: Api) -> None:
    result = await api.run("import urllib.request; urllib.request.urlopen('http://example.org')")
    assert (result["error_type"], result["error_line"]) == ("URLError", 1), result
    assert HINT in result["error"]
    assert "--network" in result["error"]
    assert result["duration_ms"] < 5000


async def test_other_errors_get_no_network_hint(api: Api) -> None:
    result = await api.run("open('/nowhere')")
    assert HINT not in result["error"]
    result = await api.run("raise OSError(101, 'Network is unreachable')", config=NETWORK)
    assert result["error"] == "[Errno 101] Network is unreachable"


async def test_a_program_with_network_reaches_out(
    api: Api, networked: Server, networks: tuple[str, str]
) -> None:
    address = gateway(networks[0])
    with listening(address) as port:
        result = await api.run(CONNECT, script_args=[address, str(port)], config=NETWORK)
        assert result["stdout"] == "reached\n", result


RESOLVES = """
import socket, sys
name = sys.argv[1]
try:
    print(socket.gethostbyname(name))
except OSError as error:
    print(type(error).__name__)
query = bytes([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(name)]) + name.encode() + bytes([0, 0, 1, 0, 1])
for number in range(3):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.3)
        asking.sendto(query, ("127.0.0.11", 53))
        try:
            print(len(asking.recv(1000)))
        except OSError as error:
            print(type(error).__name__)
print([line for line in open("/etc/resolv.conf") if line.startswith("nameserver")])
"""


async def test_programs_with_network_do_not_ask_dockers_resolver(
    image: str, api: Api, networked: Server, networks: tuple[str, str]
) -> None:
    """It knows the names of other containers, and many requests keep Docker busy."""
    with named_container(image, networks[0]) as name:
        result = await api.run(RESOLVES, script_args=[name], config=NETWORK)
    resolved, *answers, servers = result["stdout"].splitlines()
    assert (resolved, set(answers)) == ("gaierror", {"TimeoutError"}), result
    assert "127.0.0.11" not in servers
    assert not [warning for warning in await warnings_of(networked) if "resolver" in warning]


async def test_dockers_resolver_can_be_enabled(image: str, tmp_path: Path, networks: tuple[str, str]) -> None:
    own = {"run_network": networks[0], "warm_pool": "0", "dns": "docker"}
    with named_container(image, networks[0]) as name, running_server(tmp_path / "d", image, **own) as server:
        async with api_of(server.url) as api:
            result = await api.run(RESOLVES, script_args=[name], config=NETWORK)
        assert not [warning for warning in await warnings_of(server) if "resolver" in warning]
    resolved, *_, servers = result["stdout"].splitlines()
    assert ip_address(resolved) in ip_network(f"{gateway(networks[0])}/16", strict=False), result
    assert "127.0.0.11" in servers


@pytest.mark.full
async def test_name_servers_can_be_chosen(image: str, tmp_path: Path, networks: tuple[str, str]) -> None:
    run, setup = networks
    own = {"run_network": run, "setup_network": setup, "warm_pool": "0", "dns": "192.0.2.53,192.0.2.54"}
    show = "print(open('/etc/resolv.conf').read().split()[:4], open('/opt/servers').read().split()[:4])"
    with running_server(tmp_path / "d", image, **own) as server:
        async with api_of(server.url) as api:
            command = f"cp /etc/resolv.conf /opt/servers # {run}"
            result = await api.run(show, config=NETWORK, pre_commands=[command])
    servers = "['nameserver', '192.0.2.53', 'nameserver', '192.0.2.54']"
    assert result["stdout"] == f"{servers} {servers}\n", result
    said = refusal(tmp_path, image, dns="192.0.2.53,somewhere", run_network="none", setup_network="none")
    assert (
        "PYEXEC_DNS is '192.0.2.53,somewhere'; allowed: a comma-separated list of IP addresses, or docker"
        in said
    )


async def test_two_programs_with_network_do_not_reach_each_other(api: Api) -> None:
    serve = """
import socket
service = socket.create_server(("0.0.0.0", 7777))
print(socket.gethostbyname(socket.gethostname()), flush=True)
service.accept()
print("reached", flush=True)
"""
    execution_id = await api.accepted(serve, config=NETWORK)
    await api.until_printed(execution_id, b"\n")
    async with api.session.get(f"/api/v1/executions/{execution_id}/logs") as logs:
        address = (await logs.text()).split()[0]
    result = await api.run(CONNECT, script_args=[address, "7777"], config=NETWORK)
    assert "reached" not in result["stdout"], result
    assert (await api.kill(execution_id)).document == {"status": "killed"}
    assert "reached" not in (await api.ended(execution_id))["stdout"]


async def test_a_program_with_network_does_not_reach_a_setup(api: Api, networks: tuple[str, str]) -> None:
    serve = f"""python3 -c 'import socket, time
service = socket.create_server(("0.0.0.0", 7777))
print("{networks[1]} serves", 6 * 7, flush=True)
time.sleep(60)'"""
    building = await api.accepted("", pre_commands=[serve])
    async with api.events(building) as events:
        async for event in events:
            if event.name == "setup" and b"serves 42" in event.output:
                break
    address = addresses_in(networks[1])[0]
    socket.create_connection((address, 7777), timeout=5).close()  # from the machine
    result = await api.run(CONNECT, script_args=[address, "7777"], config=NETWORK)
    assert result["stdout"].partition(" ")[0] in ("TimeoutError", "OSError"), result
    assert (await api.kill(building)).document == {"status": "killed"}


async def test_a_reachable_host_is_a_warning_and_an_error_if_strict(
    image: str, tmp_path: Path, networked: Server, networks: tuple[str, str]
) -> None:
    run, _ = networks
    warnings = await warnings_of(networked)
    for name in networks:
        assert [w for w in warnings if w.startswith(f"programs on the network {name} can reach this host")], (
            warnings
        )
    assert networked.log.read_text().count(f"programs on the network {run} can reach") == 1
    with network_names() as (run, setup):  # the server creates both nevertheless
        said = refusal(tmp_path, image, run_network=run, setup_network=setup, strict="1")
    assert f"programs on the network {run} can reach this host" in said
    assert said.rstrip().endswith("or unset PYEXEC_STRICT")
    assert said.count("\n") == 1


async def test_a_reachable_server_port_is_named_in_the_warning(
    networked: Server, networks: tuple[str, str]
) -> None:
    port = networked.url.rpartition(":")[2]
    warnings = await warnings_of(networked)
    assert [w for w in warnings if networks[0] in w and f"(open ports: {port})" in w], warnings


async def test_the_firewall_blocks_the_host_and_the_metadata_address(
    image: str, tmp_path: Path, api: Api, networks: tuple[str, str]
) -> None:
    run, setup = networks
    before = rules(*networks)
    address = gateway(run)
    with listening(address) as port:
        try:
            assert firewall("up", *networks).returncode == 0
            added = rules(*networks) - before
            assert all("-j REJECT" in rule or "PYEXEC" in rule.split()[-1] for rule in added), added
            for blocked in ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"):
                endings = [rule.split(" -j ")[0] for rule in added if f"-d {blocked} " in rule]
                assert sum(each.endswith("-p icmp -m icmp --icmp-type 8") for each in endings) == 2, added
                assert sum("-p tcp -m tcp ! --dport 53" in each for each in endings) == 2, added
            more = "198.51.100.0/24"
            assert firewall("up", *networks, BLOCKED=f"169.254.0.0/16 {more}").returncode == 0
            assert sum(f"-d {more} " in rule for rule in rules(*networks) - before) == 6
            assert rules(*networks) - before > added
            service = f"{address}:{port}"
            assert firewall("up", *networks, ALLOWED=service).returncode == 0
            assert firewall("status", *networks).returncode == 1
            assert firewall("status", *networks, ALLOWED=service).returncode == 0
            tracked = connections()
            flood = FLOOD.replace('"192.0.2.1", 10000 + number', f'"{address}", {port}')
            assert "'sent': 3000" in (await api.run(flood, config=NETWORK))["stdout"]
            assert connections() - tracked < 1000
            assert firewall("up", *networks).returncode == 0
            assert rules(*networks) - before == added
            assert firewall("status", *networks).stdout.count(": closed") == 2
            own = {"run_network": run, "setup_network": setup, "strict": "1", "warm_pool": "0"}
            with running_server(tmp_path / "data", image, **own) as server:
                assert await warnings_of(server) == []
            with anyio.fail_after(60):
                for target in ((address, str(port)), ("169.254.169.254", "80"), ("168.63.129.16", "80")):
                    result = await api.run(CONNECT, script_args=list(target), config=NETWORK)
                    assert "reached" not in result["stdout"], result
        finally:
            assert firewall("down", *networks).returncode == 0
        assert rules(*networks) == before
        result = await api.run(CONNECT, script_args=[address, str(port)], config=NETWORK)
        assert result["stdout"] == "reached\n", result
    assert firewall("status", *networks).returncode == 1


@pytest.fixture
async def closed(image: str, tmp_path: Path, networks: tuple[str, str]) -> AsyncIterator[tuple[Api, str]]:
    """Start a server that applies the firewall itself; yield its API and the address of a package index on this
    machine. Remove the rules at the end."""
    run, setup = networks
    own = {"run_network": run, "setup_network": setup, "strict": "1", "warm_pool": "0", "firewall": "auto"}
    own["dns"] = gateway(run)
    before = rules(*networks)
    with listening(gateway(setup)) as port:
        index = f"{gateway(setup)}:{port}"
        own["pip_index_url"] = f"http://{index}/simple"
        try:
            with running_server(tmp_path / "data", image, **own) as server:
                assert await warnings_of(server) == []
                async with api_of(server.url) as client:
                    yield client, index
            assert rules(*networks) - before  # the rules stay when the server stops
        finally:
            assert firewall("down", *networks).returncode == 0


FLOOD = """
import collections, errno, socket
ends = collections.Counter()
for number in range(3000):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"x", ("192.0.2.1", 10000 + number))
            ends["sent"] += 1
        except OSError as error:
            ends[errno.errorcode[error.errno]] += 1
for _ in range(10):
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=0.5)
    except TimeoutError:
        continue  # it was one of those that are allowed each second
    except OSError as error:
        ends[errno.errorcode[error.errno]] += 1
        break
print(dict(ends))
"""


async def test_a_server_applies_the_firewall_by_default(
    closed: tuple[Api, str], networks: tuple[str, str]
) -> None:
    api, index = closed
    address = gateway(networks[0])
    assert (
        sum(f"-d {address}/32 -p udp -m udp --dport 53 -j ACCEPT" in rule for rule in rules(*networks)) == 2
    )
    with listening(address) as port:
        result = await api.run(CONNECT, script_args=[address, str(port)], config=NETWORK)
    assert "reached" not in result["stdout"], result
    before = connections()
    assert (await api.run(FLOOD, config=NETWORK))["stdout"] == "{'sent': 3000, 'EHOSTUNREACH': 1}\n"
    assert connections() - before < 1000
    host, _, number = index.partition(":")
    connect = f"python3 -c 'import socket; socket.create_connection((\"{host}\", {number}), 5)'"
    assert (await api.run("print('built')", pre_commands=[connect]))["stdout"] == "built\n"
    with listening(host) as port:
        connect = connect.replace(number, str(port))
        assert (await api.run("print('built')", pre_commands=[connect]))["error_type"] == "setup_failed"


async def test_a_server_leaves_the_firewall_of_other_networks_unchanged(image: str, tmp_path: Path) -> None:
    with own_network() as network:
        own = {"run_network": network, "warm_pool": "0", "firewall": "auto"}
        with running_server(tmp_path / "data", image, **own) as server:
            warnings = await warnings_of(server)
            assert [w for w in warnings if f"network {network} can reach this host" in w], warnings
        assert f"the firewall of the network {network} is not changed: " in server.log.read_text()
        assert not any("PYEXEC" in rule for rule in rules(network))


def test_the_firewall_names_a_missing_network() -> None:
    said = firewall("up", "pyexec-test-nowhere")
    assert (said.returncode, said.stdout) == (2, "")
    assert "there is no network pyexec-test-nowhere" in said.stderr
