"""Test programs that look for a network: there is only their own loopback interface."""

import asyncio

import pytest

from tests.support.attack import COMPLETED, Attack, end_of
from tests.support.cases import sampled

CONNECT = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ':' in host else socket.AF_INET
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(family, kind) as probe:
        probe.settimeout(60)
        try:
            probe.connect((host, port))
            print('connected')
        except OSError as error:
            print(error.strerror)
"""


@sampled(
    ("host", "port"),
    [
        ("169.254.169.254", 80),
        ("172.17.0.1", 22),
        ("1.1.1.1", 53),
        ("8.8.8.8", 443),
        ("255.255.255.255", 9),
        ("224.0.0.1", 9),
        ("fe80::1", 80),
        ("fd00:ec2::254", 80),
        ("2606:4700:4700::1111", 443),
    ],
    every=4,
)
async def test_no_address_is_reachable_without_network(attack: Attack, host: str, port: int) -> None:
    result = await attack(CONNECT, script_args=[host, str(port)])
    assert end_of(result) == COMPLETED
    reasons = {"Network is unreachable", "Cannot assign requested address", "Invalid argument"}
    assert set(result["stdout"].splitlines()) <= reasons


async def test_external_host_names_are_not_resolved(attack: Attack) -> None:
    source = """
import socket
for name in ('example.org', 'host.docker.internal', 'metadata.google.internal'):
    try:
        print(socket.getaddrinfo(name, 80))
    except socket.gaierror:
        print('unknown')
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "unknown\n" * 3)


@pytest.mark.parametrize("network_disabled", [True, False])
async def test_localhost_and_the_host_name_resolve(attack: Attack, network_disabled: bool) -> None:
    source = """
import socket
with socket.create_server(('localhost', 0)) as server:
    with socket.create_connection(('localhost', server.getsockname()[1])):
        print('found')
print(socket.gethostname(), {*socket.gethostbyname_ex('localhost')[2]}, socket.gethostbyname(socket.gethostname()))
"""
    result = await attack(source, config={"network_disabled": network_disabled})
    assert end_of(result) == COMPLETED, result
    found, _, names = result["stdout"].partition("\n")
    assert (found, names.split()[0]) == ("found", "sandbox")
    if network_disabled:
        assert names == "sandbox {'127.0.0.1'} 127.0.0.1\n"


async def test_etc_hosts_is_read_only_and_has_only_local_names(attack: Attack) -> None:
    source = """
try:
    open('/etc/hosts', 'w')
except OSError as error:
    print(error.strerror)
print(open('/etc/hosts').read())
"""
    result = await attack(source)
    refused, _, text = result["stdout"].partition("\n")
    assert refused in ("Read-only file system", "Permission denied")
    assert text.split() == [
        "127.0.0.1", "localhost", "sandbox", "::1", "localhost", "ip6-localhost", "ip6-loopback",
    ]  # fmt: skip


async def test_there_are_no_external_interfaces(attack: Attack) -> None:
    result = await attack("import socket; print([name for _, name in socket.if_nameindex()])")
    interfaces = set(eval(result["stdout"]))
    assert "lo" in interfaces
    assert not {name for name in interfaces if name.startswith(("eth", "docker", "br", "veth", "en"))}


LOOPBACK = """
import socket, threading, time
server = socket.create_server(('127.0.0.1', 5000))
def serve():
    connection, _ = server.accept()
    with connection:
        connection.sendall(b'served')
threading.Thread(target=serve, daemon=True).start()
with socket.create_connection(('127.0.0.1', 5000)) as client:
    print(client.recv(100).decode(), flush=True)
time.sleep(1)
"""


async def test_two_runs_can_listen_on_the_same_loopback_port(attack: Attack) -> None:
    results = await asyncio.gather(attack(LOOPBACK), attack(LOOPBACK))
    assert [(end_of(result), result["stdout"]) for result in results] == [(COMPLETED, "served\n")] * 2


@sampled(
    ("family", "kind"),
    [
        ("AF_PACKET", "SOCK_RAW"),
        ("AF_INET", "SOCK_RAW"),
        ("AF_INET6", "SOCK_RAW"),
        ("AF_VSOCK", "SOCK_STREAM"),
        ("AF_ALG", "SOCK_SEQPACKET"),
        ("AF_BLUETOOTH", "SOCK_SEQPACKET"),
        ("AF_CAN", "SOCK_RAW"),
        ("AF_TIPC", "SOCK_STREAM"),
    ],
    every=4,
)
async def test_other_sockets_are_refused(attack: Attack, family: str, kind: str) -> None:
    numbers = {"AF_PACKET": 17, "AF_INET": 2, "AF_INET6": 10, "AF_VSOCK": 40}
    numbers |= {"AF_ALG": 38, "AF_BLUETOOTH": 31, "AF_CAN": 29, "AF_TIPC": 30}
    source = f"""
import socket
try:
    socket.socket({numbers[family]}, socket.{kind})
    print('made')
except OSError:
    print('refused')
"""
    assert (await attack(source))["stdout"] == "refused\n"


async def test_interfaces_and_routes_cannot_be_made(attack: Attack) -> None:
    source = """
import fcntl, socket, struct
with socket.socket() as probe:
    for request in (0x8914, 0x890B, 0x8916, 0x89A0):
        try:
            fcntl.ioctl(probe, request, struct.pack('16sH22x', b'lo', 0))
            print('done')
        except OSError:
            print('refused')
"""
    assert (await attack(source))["stdout"] == "refused\n" * 4


async def test_docker_sockets_are_not_visible(attack: Attack) -> None:
    source = """
import os, socket
for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock'):
    print(os.path.exists(path))
for line in open('/proc/net/unix').readlines()[1:]:
    print(line.split()[-1])
"""
    assert (await attack(source))["stdout"] == "False\n" * 3
