"""Test that the operator's runtime and seccomp profile apply to every program; an unusable one prevents the start."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.isolation.test_isolation_check import refusal
from tests.support.api import api_of
from tests.support.cases import sampled
from tests.support.containers import deployment_of, until_containers
from tests.support.daemon import own_daemon
from tests.support.engine_proxy import EngineProxy
from tests.support.server import NETWORKS, PROGRAM, running_server

pytestmark = pytest.mark.independent

NO_PRIORITY = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
}

ALLOCATE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
file = open("/allocated", "wb")
zero, size = ctypes.c_long(0), ctypes.c_long(1 << 20)
assert (libc.fallocate(file.fileno(), 1, zero, size), ctypes.get_errno()) == (-1, 95)
os.posix_fallocate(file.fileno(), 0, 1 << 20)
assert os.stat("/allocated").st_size == 1 << 20
os.setpriority(os.PRIO_PROCESS, 1, 19)
assert open("/proc/1/stat").read().rpartition(")")[2].split()[16] == "0"
"""


async def test_every_container_is_created_with_the_runtime(image: str, tmp_path: Path) -> None:
    runtimes: list[str | None] = []
    proxy = EngineProxy(
        tmp_path / "docker.sock", lambda body: runtimes.append(body["HostConfig"].get("Runtime"))
    )
    proxy.start()
    try:
        settings = {"docker_host": f"unix://{proxy.path}", "docker_runtime": "runc", "warm_pool": "1"}
        with running_server(tmp_path / "data", image, **NETWORKS, **settings) as server:
            async with api_of(server.url) as api:
                assert (await api.run("print('held')"))["stdout"] == "held\n"
                sandboxes = len(runtimes)
                setup = {"pre_commands": [f"true {tmp_path}"]}
                assert (await api.run("print('built')", **setup))["stdout"] == "built\n"
                assert len(runtimes) > sandboxes
    finally:
        proxy.stop()
    assert runtimes
    assert set(runtimes) == {"runc"}


@pytest.mark.full
async def test_a_runtime_is_passed_on(image: str, tmp_path: Path) -> None:
    with own_daemon(image, "--add-runtime=sturdy=/usr/sbin/runc") as daemon:
        settings = {"docker_host": daemon.host, "docker_runtime": "sturdy", "warm_pool": "1"}
        with running_server(tmp_path / "data", image, **settings) as server:
            deployment = deployment_of(server.data_dir)
            [container] = await until_containers(deployment, 1, host=daemon.host)
            assert daemon.run("inspect", "--format", "{{.HostConfig.Runtime}}", container).strip() == "sturdy"
            async with api_of(server.url) as api:
                assert (await api.run("print('held')"))["stdout"] == "held\n"


def test_an_unknown_runtime_prevents_the_start(image: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, image, docker_runtime="runsc-nowhere")
    assert "PYEXEC_DOCKER_RUNTIME is 'runsc-nowhere'; this Docker engine knows " in said
    assert "runc" in said


async def test_the_seccomp_profile_applies_to_programs_and_setups(image: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(NO_PRIORITY))
    source = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
    with running_server(
        tmp_path / "data", image, **NETWORKS, seccomp_profile=str(profile), warm_pool="1"
    ) as server:
        async with api_of(server.url) as api:
            result = await api.run(source)
            assert (result["stdout"], result["error"]) == ("", "[Errno 38] Function not implemented"), result
            setup = await api.run(source, pre_commands=["nice"])
            assert setup["error_type"] == "setup_failed", setup
            assert "Function not implemented" in setup["stderr"], setup
            allocated = await api.run("print('fine')", pre_commands=[f"python3 -c '{ALLOCATE}'"])
            assert allocated["stdout"] == "fine\n", allocated


@sampled(
    ("text", "reason"),
    [
        (None, "which cannot be read: No such file"),
        ("root:x:0:0:root", "which is not JSON: Expecting value"),
        ("[]", "allowed: a seccomp profile"),
        pytest.param("[" * 100_000, "maximum recursion depth", id="nested too deeply"),
        ('{"syscalls": []}', "allowed: a seccomp profile"),
    ],
    every=3,
)
def test_an_invalid_seccomp_profile_prevents_the_start(
    image: str, tmp_path: Path, text: str | None, reason: str
) -> None:
    profile = tmp_path / "profile.json"
    if text is not None:
        profile.write_text(text)
    said = refusal(tmp_path, image, seccomp_profile=str(profile))
    assert said.startswith(f"python-executor-server: PYEXEC_SECCOMP_PROFILE is '{profile}'"), said
    assert reason in said
    assert said.count("\n") == 1


def test_help_names_the_settings() -> None:
    said = subprocess.run([PROGRAM, "--help"], check=True, capture_output=True, text=True).stdout
    for name in ("ALLOW_UNENFORCED", "STRICT", "SECCOMP_PROFILE", "DOCKER_RUNTIME"):
        assert f"PYEXEC_{name} " in said
