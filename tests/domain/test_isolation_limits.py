"""Test which limits do not hold, given the observations of a probe."""

from typing import Any

import pytest
from attrs import evolve

from pyexec.domain.isolation import (
    LIMITS,
    LimitsReport,
    NetworkReport,
    ProbeLimits,
    docker_resolvers,
    network_exposures,
    unenforced_limits,
)
from pyexec.domain.sandbox_limits import RESOURCE_LIMITS, TCP_BUFFER_BYTES

MEBIBYTE = 1024 * 1024
ASKED = ProbeLimits(
    memory_bytes=48 * MEBIBYTE,
    disk_bytes=2 * MEBIBYTE,
    pids_max=16,
    cpu_shares=512,
    cpus=0.5,
    uids=range(5000, 5010),
)
HELD = LimitsReport(
    exceeds_memory=False,
    swap_bytes=0,
    host_swap_bytes=2**30,
    processes=16,
    work_bytes=2 * MEBIBYTE,
    tmp_bytes=2 * MEBIBYTE,
    interfaces=("lo",),
    has_route=False,
    can_write_root=False,
    capabilities=(),
    no_new_privileges=True,
    seccomp=True,
    ids=(5003,),
    resources=dict(RESOURCE_LIMITS),
    tcp_buffer_bytes=TCP_BUFFER_BYTES,
    terminals=0,
    readable=(),
    volumes=(),
    cpu_seconds=0.12,
    elapsed_seconds=0.25,
    cpus=0.5,
    cpu_shares=512,
    cpu_weight=None,
)
V2 = {"cpu_shares": None, "cpu_weight": 20, "tcp_buffer_bytes": None}
"""Values that differ with version 2 of control groups."""


@pytest.mark.parametrize("version", [{}, V2])
def test_enforced_limits_are_not_reported(version: dict[str, Any]) -> None:
    assert unenforced_limits(ASKED, evolve(HELD, **version), ()) == {}


@pytest.mark.parametrize(
    ("limit", "met"),
    [
        ("memory", {"exceeds_memory": True}),
        ("swap", {"swap_bytes": 2**63}),
        ("swap", {"swap_bytes": None}),
        ("pids", {"processes": 17}),
        ("disk", {"work_bytes": 2 * MEBIBYTE + 65536}),
        ("tmp", {"tmp_bytes": 2 * MEBIBYTE + 65536}),
        ("network", {"interfaces": ("eth0", "lo")}),
        ("network", {"has_route": True}),
        ("read_only_root", {"can_write_root": True}),
        ("capabilities", {"capabilities": ("CapEff",)}),
        ("no_new_privileges", {"no_new_privileges": False}),
        ("seccomp", {"seccomp": False}),
        ("uid", {"ids": (0, 5003)}),
        ("uid", {"ids": (1000,)}),
        ("rlimits", {"resources": {**RESOURCE_LIMITS, "nofile": 1048576}}),
        ("rlimits", {"resources": {**RESOURCE_LIMITS, "core": 0}}),
        ("sockets", {"tcp_buffer_bytes": 6291456}),
        ("terminals", {"terminals": 1}),
        ("masked_paths", {"readable": ("/proc/kallsyms",)}),
        ("volumes", {"volumes": ("/data",)}),
        ("cpus", {"cpus": 9e13}),
        ("cpus", {"cpus": None, "cpu_seconds": 0.5}),
        ("cpu_shares", {"cpu_shares": 1024}),
        ("cpu_shares", {"cpu_shares": None, "cpu_weight": 100}),
    ],
)
def test_each_unenforced_limit_is_reported(limit: str, met: dict[str, Any]) -> None:
    found = unenforced_limits(ASKED, evolve(HELD, **met), ())
    assert list(found) == [limit]
    assert found[limit]


def test_a_machine_without_swap_needs_no_limit_of_it() -> None:
    assert unenforced_limits(ASKED, evolve(HELD, swap_bytes=None, host_swap_bytes=0), ()) == {}


def test_low_cpu_usage_on_a_busy_machine_is_no_violation() -> None:
    assert unenforced_limits(ASKED, evolve(HELD, cpu_seconds=0.01), ()) == {}


def test_the_report_of_the_engine_counts_for_unobservable_limits() -> None:
    blind = evolve(HELD, cpus=None, cpu_shares=None)
    assert unenforced_limits(ASKED, blind, ()) == {}
    assert list(unenforced_limits(ASKED, blind, ("cpu_shares", "cpus"))) == ["cpus", "cpu_shares"]
    assert unenforced_limits(ASKED, HELD, LIMITS) == {}, (
        "an observed limit counts more than the report of the engine"
    )
    assert list(unenforced_limits(evolve(ASKED, cpus=None), evolve(HELD, cpus=9e13), ("cpus",))) == ["cpus"]


def test_exposures_name_the_network_the_host_and_what_answered() -> None:
    closed = NetworkReport(host="172.19.0.1", open=(), refused=(), metadata=False, docker_resolver=False)
    reached = {
        "a": closed,
        "b": evolve(closed, open=(2375, 8080), refused=(2376,)),
        "c": evolve(closed, refused=(2375,), metadata=True),
        "d": evolve(closed, host=None, metadata=True),
    }
    assert network_exposures(reached) == [
        "programs on the network b can reach this host at 172.19.0.1 (open ports: 2375, 8080)",
        "programs on the network c can reach this host at 172.19.0.1 and the cloud's metadata address",
        "programs on the network d can reach the cloud's metadata address",
    ]


def test_networks_in_which_dockers_resolver_answers_are_named() -> None:
    without = NetworkReport(host=None, open=(), refused=(), metadata=False, docker_resolver=False)
    reports = {"a": without, "b": evolve(without, docker_resolver=True)}
    assert docker_resolvers(reports) == ["programs on the network b can ask Docker's own resolver"]
