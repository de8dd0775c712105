"""Networks for a test, created by a server, and the firewall rules on them."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.paths import ROOT

NETWORK = {"network_disabled": False}
"""The option of a program with network."""
SCRIPT = ROOT / "nomad" / "firewall.sh"


@contextmanager
def network_names() -> Iterator[tuple[str, str]]:
    """Yield names for a network of runs and one of setups, which a server creates; remove the networks at the end."""
    number = secrets.token_hex(4)
    run, setup = f"pyexec-test-run-{number}", f"pyexec-test-setup-{number}"
    try:
        yield run, setup
    finally:
        subprocess.run(["docker", "network", "rm", run, setup], check=True, stdout=subprocess.PIPE)


@contextmanager
def named_container(image: str, network: str) -> Iterator[str]:
    """Start a container that sleeps in the network; yield its name."""
    name = f"pyexec-test-name-{secrets.token_hex(4)}"
    run = ["docker", "run", "--detach", "--rm", "--network", network, "--name", name, image, "sleep", "300"]
    subprocess.run(run, check=True, stdout=subprocess.PIPE)
    try:
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, stdout=subprocess.PIPE)


def addresses_in(network: str) -> list[str]:
    """Return the IPv4 addresses of the containers in the network."""
    show = [
        "docker",
        "network",
        "inspect",
        "--format",
        "{{range .Containers}}{{.IPv4Address}} {{end}}",
        network,
    ]
    said = subprocess.run(show, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [address.partition("/")[0] for address in said.split()]


def firewall(command: str, *networks: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the firewall script; a failure is in the exit code."""
    return subprocess.run(
        [SCRIPT, command],
        env={**os.environ, "NETWORKS": " ".join(networks), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def bridges(*networks: str) -> list[str]:
    """Return the names of the bridges of these networks, as the script prints them."""
    said = firewall("status", *networks).stdout
    return [line.partition("(")[2].partition(")")[0] for line in said.splitlines()]


def rules(*networks: str) -> set[str]:
    """Return the firewall rules for these networks. Other rules may change at any time."""
    interfaces = bridges(*networks)
    return {
        f"{program} {line}"
        for program in ("iptables", "ip6tables")
        for line in subprocess.run(
            [program, "--list-rules"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()
        if any(interface in line for interface in interfaces)
    }
