"""Test `python-executor-server --check`: its results, how to fix each problem, and that it leaves nothing behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from pyexec.adapters.data_dir import DataDir
from pyexec.adapters.docker.engine import DockerInfo
from pyexec.adapters.sqlite.log import FILE_NAME, EmbeddedLog
from pyexec.errors import CorruptLog
from pyexec.preflight.check_result import Verdict, as_text, ok, warning
from pyexec.preflight.docker import check_info, check_memory
from pyexec.preflight.host import check_data_dir, check_sessions
from pyexec.settings import Settings
from tests.events import new_id, submitted
from tests.isolation.test_isolation_check import refusal
from tests.operations.preflight import Checked, check, run
from tests.support.consul import ACL, MASTER, Agent, dev_agent
from tests.support.images import docker
from tests.support.server import PROGRAM, running_server

pytestmark = pytest.mark.independent


def containers_of(image: str, label: str) -> list[str]:
    """Return the containers with a label that use this worker's image."""
    return docker("ps", "--all", "--quiet", f"--filter=ancestor={image}", f"--filter=label={label}")


def data_root() -> str:
    """Return the directory of the engine's images. Engine and tests are on one machine."""
    (path,) = docker("info", "--format", "{{.DockerRootDir}}")
    return path


def has_own_file_system(path: str) -> bool:
    """Return True if the directory is on a whole mounted file system other than that of the root directory."""
    mounts = [line.split()[3:5] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    root, point = max(
        ((root, point) for root, point in mounts if Path(path).is_relative_to(point)),
        key=lambda mount: len(mount[1]),
    )
    return root == "/" and point != "/"


def networks() -> set[str]:
    """Return the networks on the engine, without those that other tests create and remove."""
    names = docker("network", "ls", "--format", "{{.Name}}")
    return {name for name in names if not name.startswith("pyexec-test-")}


def keys(agent: Agent, token: str = "") -> list[str]:
    """Return all keys in Consul. The key `test` is written first, to prove that the list can be read."""
    headers = {"X-Consul-Token": token} if token else {}
    urlopen(Request(f"http://{agent.address}/v1/kv/test", b"", headers, method="PUT")).close()
    with urlopen(Request(f"http://{agent.address}/v1/kv/?keys", headers=headers)) as answer:
        return [key for key in json.load(answer) if key != "test"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings(), "at most 16; if an image has no IPython, it is installed"),
        (Settings(setup_network="none"), "need an image with IPython"),
        (Settings(max_sessions=0), "disabled"),
    ],
)
def test_it_tells_where_sessions_can_run(settings: Settings, text: str) -> None:
    [result] = check_sessions(settings)
    assert result.verdict is Verdict.OK
    assert result.text.startswith(text)


def test_all_checks_pass_and_leave_nothing_behind(image: str, tmp_path: Path) -> None:
    network = f"pyexec-check-{os.getpid()}"
    there = networks()
    with dev_agent(tmp_path / "consul") as agent:
        found = check(
            image,
            tmp_path / "data",
            consul_addr=agent.address,
            blob_url=f"file://{tmp_path}/blobs/deep",
            run_network=network,
        )
        assert (found.exit_code, found.failed) == (0, set())
        assert "replicas online: 0" in found("consul", "ok")[0]
        assert "write, read and delete work" in found("blobs", "ok")[0]
        assert "starts in" in found("image", "ok")[0]
        assert "control groups version" in found("docker", "ok")[0]
        assert found("clock", "ok")
        assert found("limits")
        (disk,) = found("disk")
        assert data_root() in disk
        assert ("has no file system of its own" in disk) is not has_own_file_system(data_root())
        assert keys(agent) == []
        with urlopen(f"http://{agent.address}/v1/session/list") as answer:
            assert json.load(answer) == []
    assert containers_of(image, "pyexec-etc") == []
    assert containers_of(image, "pyexec.probe") == []
    assert network not in networks()
    assert networks() <= there | {"pyexec-run", "pyexec-setup"}  # other tests may create these
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consul"]


def test_it_names_the_process_that_uses_the_data_directory(image: str, tmp_path: Path) -> None:
    locked = DataDir.acquire(tmp_path / "data")
    try:
        before = sorted(path.name for path in locked.path.rglob("*"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            found = check(image, locked.path, port=port, docker_socket="/none", server="http://client.only")
        assert found.failed == {"docker"}
        assert found("settings", "ok") == [
            "PYEXEC_DATA_DIR, PYEXEC_DEFAULT_IMAGE, PYEXEC_DOCKER_SOCKET, PYEXEC_PORT"
        ]
        assert f"in use by a running server, process {os.getpid()}" in found("data", "ok")[0]
        assert "is in use" in found("address", "warning")[0]
        assert sorted(path.name for path in locked.path.rglob("*")) == before
    finally:
        locked.release()


def test_it_finds_a_damaged_deployment_id(image: str, tmp_path: Path) -> None:
    (tmp_path / "deployment").write_bytes(b"\xff\n")
    found = check(image, tmp_path, docker_socket="/none")
    assert found.failed == {"docker", "data"}
    assert "not a deployment id" in found("data", "failed")[0]


@pytest.mark.full
def test_it_works_beside_a_running_server(image: str, tmp_path: Path) -> None:
    little = {"max_total_memory_mb": "100"}
    with running_server(tmp_path / "data", image, warm_pool="0", **little) as server:
        before = sorted(path.name for path in server.data_dir.rglob("*"))
        port = server.url.rpartition(":")[2]
        found = check(image, server.data_dir, port=port, **little)
        assert found.exit_code == 0
        (memory,) = found("memory", "warning")
        assert f"WARNING pyexec.wiring.replica: {memory}\n" in server.log.read_text()
        assert f"in use by a running server, process {server.process.pid}" in found("data", "ok")[0]
        assert "is in use" in found("address", "warning")[0]
        assert sorted(path.name for path in server.data_dir.rglob("*")) == before
        with urlopen(f"{server.url}/ready") as answer:
            assert answer.status == 200


def test_all_problems_are_reported_at_once(image: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    found = check(
        image,
        tmp_path / "file" / "data",
        docker_socket=str(tmp_path / "nobody"),
        consul_addr="127.0.0.1:1",
        ca_bundle=str(tmp_path / "file"),
        uv=str(tmp_path),
        blob_url=f"file://{tmp_path}/file/blobs",
        host="0.0.0.0",
    )
    assert found.exit_code == 1
    assert found.failed == {"data", "docker", "consul", "ca", "installer", "blobs"}
    assert "PYEXEC_DATA_DIR must be a directory" in found("data", "failed")[0]
    docker = found("docker", "failed")[0]
    assert (
        f"Docker does not answer: cannot connect to unix://{tmp_path}/nobody: No such file or directory"
        in docker
    )
    assert "set PYEXEC_DOCKER_SOCKET" in docker
    assert "is not an executable file" in found("installer", "failed")[0]
    assert "cannot be reached" in found("consul", "failed")[0]
    assert "set PYEXEC_API_TOKENS" in found("address", "warning")[0]


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_a_damaged_log_is_reported_and_nothing_changes(tmp_path: Path, kept: float) -> None:
    """The log is healthy if all of it is `kept`, and as good as new if nothing is."""

    async def write_log() -> None:
        async with await EmbeddedLog.open(tmp_path) as log:
            for _ in range(50):
                await log.append(new_id(), 0, [submitted()])

    asyncio.run(write_log())
    file = tmp_path / FILE_NAME
    os.truncate(file, int(file.stat().st_size * kept))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    [result] = check_data_dir(Settings(data_dir=tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    if kept == 0.5:
        with pytest.raises(CorruptLog) as refused:
            asyncio.run(write_log())
        assert (result.verdict, result.text) == (
            Verdict.FAILED,
            f"cannot use {str(tmp_path)!r}: {refused.value}",
        )
    else:
        assert result.verdict is Verdict.OK


@pytest.mark.parametrize("content", [b"no database" * 1000, b"\0" * 8192])
def test_a_file_that_is_no_log_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    [result] = check_data_dir(Settings(data_dir=tmp_path))
    assert result.verdict is Verdict.FAILED
    assert "the file of the event log is corrupt" in result.text


def test_a_server_does_not_start_with_files_that_setups_could_not_use(image: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no certificate")
    refused = refusal(tmp_path, image, uv=str(tmp_path), setup_network="pyexec-setup")
    assert f"PYEXEC_UV: {str(tmp_path)!r} is not an executable file" in refused
    refused = refusal(tmp_path, image, ca_bundle=str(tmp_path / "file"))
    assert f"PYEXEC_CA_BUNDLE: cannot read certificates from {str(tmp_path / 'file')!r}" in refused


def test_a_token_with_insufficient_rights_is_reported(image: str, tmp_path: Path) -> None:
    with dev_agent(tmp_path / "consul", acl=ACL) as agent:

        def check_with(rules: str) -> Checked:
            settings = {"consul_addr": agent.address, "consul_token": token_with(agent, rules)}
            return check(image, tmp_path / "data", docker_socket="/none", **settings)

        for rules, missing in (
            ("", "has no permission for pyexec/deployment"),
            (
                'key_prefix "pyexec/" { policy = "read" } session_prefix "" { policy = "write" }',
                "pyexec/checks/",
            ),
            ('key_prefix "pyexec/" { policy = "write" }', "has no permission for a session"),
        ):
            (failed,) = check_with(rules)("consul", "failed")
            assert missing in failed
            assert 'docs/consul.md lists the permissions under "Permissions"' in failed
            assert keys(agent, MASTER) == []
        full = 'key_prefix "pyexec/" { policy = "write" } session_prefix "" { policy = "write" }'
        assert check_with(full)("consul", "ok")


def token_with(agent: Agent, rules: str) -> str:
    """Create a token with only these rules."""

    def put(path: str, document: Any) -> Any:
        request = Request(
            f"http://{agent.address}/v1/acl/{path}",
            json.dumps(document).encode(),
            {"X-Consul-Token": MASTER},
            method="PUT",
        )
        with urlopen(request) as answer:
            return json.load(answer)

    policies = []
    if rules:
        name = f"policy-{abs(hash(rules))}"
        policies.append({"ID": put("policy", {"Name": name, "Rules": rules})["ID"]})
    return str(put("token", {"Policies": policies})["SecretID"])


def test_an_image_that_is_not_there(image: str, tmp_path: Path) -> None:
    found = check("localhost:1/nothing:1", tmp_path / "data")
    assert (found.exit_code, found.failed) == (1, {"image"})
    assert "docker pull localhost:1/nothing:1" in found("image", "failed")[0]


def test_a_runtime_that_is_not_there(image: str, tmp_path: Path) -> None:
    found = check(image, tmp_path / "data", docker_runtime="none-such")
    assert (found.exit_code, found.failed) == (1, {"docker"})
    assert "PYEXEC_DOCKER_RUNTIME is 'none-such'; this Docker engine knows" in found("docker", "failed")[0]


def test_an_ipv6_host_and_a_malformed_address_of_consul(image: str, tmp_path: Path) -> None:
    found = check(image, tmp_path / "data", host="::1", consul_addr="consul:99999")
    assert found.failed == {"consul"}
    assert found("address", "ok")[0].startswith("[::1]:")


def test_the_text_output_has_one_line_for_each_check(tmp_path: Path) -> None:
    done = run(port="none", max_prot="1", data_dir=str(tmp_path / "data"))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "failed   settings   PYEXEC_PORT is 'none'; allowed: a whole number from 0 to 65535; "
        "all other checks were skipped\n"
        "failed   settings   PYEXEC_MAX_PROT is not a setting; did you mean PYEXEC_MAX_CPUS? "
        "python-executor-server --help lists all settings; all other checks were skipped\n"
        "2 failed\n"
    )
    done = run(default_memory_mb="64", max_memory_mb="32")
    assert "PYEXEC_DEFAULT_MEMORY_MB is 64; allowed: at most PYEXEC_MAX_MEMORY_MB, which is 32" in done.stdout
    done = run(data_dir=str(tmp_path / "data"), docker_socket="/none")
    *lines, total = done.stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warning", "failed") for line in lines)
    assert total.startswith("1 failed, ")


def test_the_totals_are_grammatical() -> None:
    results = [ok("a", ""), warning("b", ""), warning("c", "")]
    assert as_text(results).splitlines()[-1] == "2 warnings, 1 ok"
    assert as_text(results[:2]).splitlines()[-1] == "1 warning, 1 ok"


def test_a_closed_output_pipe_ends_the_program_silently() -> None:
    with subprocess.Popen([PROGRAM, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        assert told.stdout is not None
        assert told.stderr is not None
        told.stdout.close()
        assert told.stderr.read() == b""
    assert told.returncode == -signal.SIGPIPE


def test_help_names_every_setting_and_wrong_usage_is_one_line() -> None:
    told = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--check" in told
    assert "PYEXEC_LOG_FORMAT" in told
    done = subprocess.run([PROGRAM, "--chekc"], capture_output=True, text=True, check=False)
    assert done.returncode == 2  # 1 means that a check failed
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "check_is", "message"),
    [
        ("[acme]\ntokens = ['s3cret']\n[research]\ntokens = ['x']\n", "ok", "acme, research"),
        ("[acme]\ntokens = ['s3cret']\nweigth = 2\n", "failed", "line 3: acme.weigth is unknown"),
    ],
)
def test_the_file_of_tenants_is_checked(
    image: str, tmp_path: Path, text: str, check_is: str, message: str
) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(text)
    found = check(image, tmp_path / "data", docker_socket="/none", host="0.0.0.0", tenants_file=str(file))
    assert message in found("tenants", check_is)[0]
    assert not found("address", "warning")
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("filters", [True, False])
def test_an_engine_whose_bridges_are_not_filtered_is_reported(*, filters: bool) -> None:
    """Docker's option to block traffic between containers has no effect then."""
    info = DockerInfo(
        version="20.10",
        api="1.41",
        cgroup="version 1",
        runtime="runc",
        data_root="/var/lib/docker",
        system_time=None,
        filters_bridges=filters,
    )
    found = [result for result in check_info(Settings(), info) if result.check == "networks"]
    assert [result.verdict for result in found] == ([] if filters else [Verdict.WARNING])


def test_a_budget_that_is_too_small_for_a_run_with_the_default_limits_is_reported() -> None:
    assert check_memory(Settings(), 24 * 1024).verdict is Verdict.OK
    small_machine = check_memory(Settings(), 2048)
    assert small_machine.verdict is Verdict.WARNING
    assert "PYEXEC_MAX_TOTAL_MEMORY_MB" not in small_machine.text
    small_budget = check_memory(Settings(max_total_memory_mb=2048), 24 * 1024)
    assert small_budget.verdict is Verdict.WARNING
    assert "raise PYEXEC_MAX_TOTAL_MEMORY_MB" in small_budget.text
    assert check_memory(Settings(default_memory_mb=64, default_disk_mb=64), 512).verdict is Verdict.OK
