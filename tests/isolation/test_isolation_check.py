"""Test a server on an engine that ignores a limit: it does not start, unless the operator accepts that limit."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyexec.settings import PREFIX
from pyexec.settings_parser import CLIENT_VARIABLES
from tests.support.api import api_of
from tests.support.cases import sampled
from tests.support.engine_proxy import EngineProxy
from tests.support.server import PROGRAM, SETUP_NETWORK, Server, running_server

pytestmark = pytest.mark.independent

MEBIBYTE = 1024 * 1024


def without(name: str) -> Callable[[Any], None]:
    return lambda body: body["HostConfig"].pop(name)


def with_host(**values: Any) -> Callable[[Any], None]:
    return lambda body: body["HostConfig"].update(values)


def larger(directory: str) -> Callable[[Any], None]:
    def rewrite(body: Any) -> None:
        mounts = body["HostConfig"]["Tmpfs"]
        mounts[directory] = mounts[directory].rpartition("size=")[0] + f"size={64 * MEBIBYTE}"

    return rewrite


def with_memory(body: Any) -> None:
    body["HostConfig"].update(Memory=1024 * MEBIBYTE, MemorySwap=1024 * MEBIBYTE)


def as_root(body: Any) -> None:
    body["User"] = "0:0"


def connected(body: Any) -> None:
    body["NetworkDisabled"] = False
    body["HostConfig"].update(NetworkMode="pyexec-run", Mounts=[])


def with_terminals(body: Any) -> None:
    del body["HostConfig"]["Tmpfs"]["/dev/pts"]


def with_volume(body: Any) -> None:
    body["HostConfig"]["Mounts"].append({"Type": "bind", "Source": "/var/tmp", "Target": "/mnt"})


def options(*names: str) -> Callable[[Any], None]:
    return with_host(SecurityOpt=list(names))


IGNORED = {
    "uid": as_root,
    "memory": with_memory,
    "pids": without("PidsLimit"),
    "disk": larger("/work"),
    "tmp": larger("/tmp"),
    "network": connected,
    "read_only_root": without("ReadonlyRootfs"),
    "capabilities": with_host(CapDrop=[], CapAdd=["NET_RAW"]),
    "no_new_privileges": options(),
    "seccomp": options("no-new-privileges:true", "seccomp=unconfined"),
    "rlimits": without("Ulimits"),
    "sockets": without("Sysctls"),
    "terminals": with_terminals,
    "masked_paths": with_host(MaskedPaths=[]),
    "volumes": with_volume,
    "cpus": without("NanoCpus"),
    "cpu_shares": without("CpuShares"),
}
"""For each limit, the change to a request that makes the engine ignore the limit."""
TOGETHER = (
    (
        "memory", "pids", "disk", "tmp", "read_only_root", "seccomp", "rlimits", "sockets", "masked_paths", "cpus",
        "cpu_shares",
    ),
    ("network", "capabilities", "no_new_privileges", "terminals", "volumes"),
)  # fmt: skip
"""Limits that an engine can ignore at the same time. Only `uid` is missing: root is not subject to some others."""


@contextmanager
def engine_that_ignores(directory: Path, *limits: str, created: list[Any] | None = None) -> Iterator[str]:
    """Yield the address of the engine. Add the labels of each container to `created`."""

    def rewrite(body: Any) -> None:
        if created is not None:
            created.append(body["Labels"])
        if body["Labels"].get("pyexec.probe") != "network_probe":
            for limit in limits:
                IGNORED[limit](body)

    proxy = EngineProxy(directory / "docker.sock", rewrite)
    proxy.start()
    try:
        yield f"unix://{proxy.path}"
    finally:
        proxy.stop()


def refusal(directory: Path, image: str, **settings: str) -> str:
    """Return the error message of a server that does not start."""
    own = {
        "port": "0",
        "data_dir": str(directory / "data"),
        "default_image": image,
        "run_network": "none",  # the check of a network starts a container
        "setup_network": "none",
        "firewall": "off",
        **settings,
    }
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(PREFIX) or k in CLIENT_VARIABLES
    } | {f"PYEXEC_{name.upper()}": value for name, value in own.items()}
    ended = subprocess.run(
        [PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    return ended.stderr


async def warnings_of(server: Server) -> list[str]:
    async with api_of(server.url) as api:
        answer = await api.get("/ready")
        assert (answer.status, answer.document["status"]) == (200, "ok")
        return list(answer.document.get("warnings", ()))


@sampled("limit", IGNORED, every=len(IGNORED))
def test_an_unenforced_limit_prevents_the_start_and_is_named(image: str, tmp_path: Path, limit: str) -> None:
    with engine_that_ignores(tmp_path, limit) as host:
        said = refusal(tmp_path, image, docker_host=host)
    assert f"does not enforce {limit} (" in said, said
    assert said.rstrip().endswith(f"to accept this, set PYEXEC_ALLOW_UNENFORCED={limit}")
    assert said.count("\n") == 1, said


@pytest.mark.parametrize("limits", TOGETHER, ids=lambda limits: limits[0])
def test_each_of_many_unenforced_limits_is_named(image: str, tmp_path: Path, limits: tuple[str, ...]) -> None:
    with engine_that_ignores(tmp_path, *limits) as host:
        said = refusal(tmp_path, image, docker_host=host)
    for limit in limits:
        assert f"{limit} (" in said, said
    named = said.rstrip().rpartition("to accept this, set PYEXEC_ALLOW_UNENFORCED=")[2]
    assert set(named.split(",")) == set(limits), said
    assert said.count("\n") == 1, said


def test_all_unenforced_limits_are_named_at_once(image: str, tmp_path: Path) -> None:
    with engine_that_ignores(tmp_path, "disk", "pids") as host:
        said = refusal(tmp_path, image, docker_host=host, allow_unenforced="seccomp")
    assert said.rstrip().endswith("to accept this, set PYEXEC_ALLOW_UNENFORCED=seccomp,pids,disk")


async def test_an_accepted_unenforced_limit_is_only_a_warning(image: str, tmp_path: Path) -> None:
    with (
        engine_that_ignores(tmp_path, "pids") as host,
        running_server(tmp_path / "data", image, docker_host=host, allow_unenforced="pids") as server,
    ):
        assert [w for w in await warnings_of(server) if w.startswith("pids is not enforced (accepted by")]
        async with api_of(server.url) as api:
            assert (await api.run("print(1)"))["stdout"] == "1\n"
    assert server.log.read_text().count("pids is not enforced") == 1


def test_an_unknown_limit_cannot_be_accepted(image: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, image, allow_unenforced="pids,gravity")
    assert said.startswith(
        "python-executor-server: PYEXEC_ALLOW_UNENFORCED is 'pids,gravity'; allowed: a comma-separated list of memory, "
    )


async def test_without_the_default_image_the_isolation_check_runs_in_the_first_image(
    image: str, tmp_path: Path
) -> None:
    with running_server(tmp_path / "data", "pyexec-nowhere:none", warm_pool="0") as server:
        [warning] = await warnings_of(server)
        assert warning.startswith("isolation check pending"), warning
        async with api_of(server.url) as api:
            assert (await api.run("print(1)", docker_image=image))["stdout"] == "1\n"
        assert not [w for w in await warnings_of(server) if "pending" in w]


@sampled("setup", [[], ["true"]], every=2)
async def test_a_late_failure_of_the_isolation_check_ends_the_server_before_any_program(
    image: str, tmp_path: Path, setup: Sequence[str]
) -> None:
    created: list[Any] = []
    with (
        engine_that_ignores(tmp_path, "pids", created=created) as host,
        pytest.raises(RuntimeError, match="the server exited with code") as ended,
    ):
        await submit_to_unchecked_server(tmp_path / "data", image, host, setup)
    assert created
    assert not any(labels.get("pyexec.deployment") for labels in created), "more than the probes ran"
    said = str(ended.value)
    assert "does not enforce pids (" in said.splitlines()[-1], said
    assert "Traceback" not in said


async def submit_to_unchecked_server(data_dir: Path, image: str, host: str, setup: Sequence[str]) -> None:
    """Submit a program to a server whose isolation check is still pending."""
    settings = {**SETUP_NETWORK, "docker_host": host, "warm_pool": "0"}
    with running_server(data_dir, "pyexec-nowhere:none", **settings) as server:
        async with api_of(server.url) as api:
            await api.accepted("print('ran')", docker_image=image, pre_commands=setup)
            assert server.process.wait(60) == 1
