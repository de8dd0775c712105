"""Test the job files with Nomad's own parser and validation, and their environment with the server's settings."""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pyexec.errors import SettingsError
from pyexec.settings import PREFIX, Settings
from pyexec.settings_parser import read_settings
from tests.support.golang import Module
from tests.support.paths import ROOT

NOMAD = ROOT / "nomad"
JOBS = sorted(NOMAD.glob("*.nomad.hcl"))
SECOND = 1_000_000_000
# Variables that Nomad interpolates when it starts a task.
RUNTIME = {
    "NOMAD_ADDR_http": "192.0.2.1:23456",
    "NOMAD_ALLOC_DIR": "/alloc",
    "attr.unique.network.ip-address": "192.0.2.1",
}
CLEANUP_SECONDS = 10
"""Time that the server needs after the drain."""


Parse = Callable[..., Any]


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    """Build Nomad's parser, and return a function that parses and validates a job file with these variables."""
    program = tmp_path_factory.mktemp("nomad") / "check"
    Module(NOMAD / "check").go("build", "-o", str(program), ".")

    def parse(path: Path, **variables: object) -> Any:
        given = [f"-var={name}={value}" for name, value in variables.items()]
        done = subprocess.run([program, *given, path], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    return parse


@pytest.fixture(params=JOBS, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def report(path: Path, parsed: Parse) -> Any:
    return parsed(path)


def group_of(report: Any) -> Any:
    (group,) = report["Job"]["TaskGroups"]
    return group


def server_of(report: Any) -> Any:
    return next(task for task in group_of(report)["Tasks"] if task["Name"] == "server")


def settings_of(report: Any) -> Settings:
    """Parse the environment of the task as the server does; raise SettingsError if it is invalid."""
    environment: Mapping[str, str] = server_of(report)["Env"]
    filled = {
        name: re.sub(r"\$\{([^}]+)\}", lambda found: RUNTIME[found[1]], value)
        for name, value in environment.items()
    }
    assert all(name.startswith(PREFIX) for name in filled)
    return read_settings(filled)


def test_there_are_two_jobs() -> None:
    assert [path.name for path in JOBS] == ["pyexec-dind.nomad.hcl", "pyexec.nomad.hcl"]


def test_formatting(report: Any) -> None:
    assert report["Formatted"] is True


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"stop_seconds": 86_400},  # Nomad refuses a kill timeout over the progress deadline
        {"count": 1, "auto_promote": "false", "tags": "[]", "blob_url": "s3://bucket/path"},
        {"count": 0, "disk": 101, "cpu": 1, "memory": 10, "port": 1, "datacenters": '["a", "b"]'},
    ],
)
def test_nomad_accepts_the_job_without_warnings(
    path: Path, parsed: Parse, variables: dict[str, object]
) -> None:
    assert parsed(path, **variables)["Warnings"] == ""


def test_every_variable_has_a_description_and_a_default(report: Any) -> None:
    assert len(report["Variables"]) > 10
    for variable in report["Variables"]:
        assert {"type", "default", "description"} <= set(variable["Attributes"]), variable["Name"]
        assert len(variable["Attributes"]["description"]) > 20, variable["Name"]


def test_every_variable_is_used(path: Path, report: Any) -> None:
    names = {variable["Name"] for variable in report["Variables"]}
    assert names == set(re.findall(r"\bvar\.(\w+)", path.read_text()))


def test_the_server_accepts_its_environment(path: Path, report: Any) -> None:
    settings = settings_of(report)
    assert settings.advertise_addr == "http://192.0.2.1:23456"
    assert settings.consul_addr == "192.0.2.1:8500"
    # The template and the comments contain more settings.
    known = {PREFIX + name.upper() for name in Settings.__annotations__}
    assert set(re.findall(r"PYEXEC_\w+", path.read_text())) <= known


def test_the_port_matches_the_server_setting(report: Any) -> None:
    (network,) = group_of(report)["Networks"]
    (port,) = network["DynamicPorts"]
    assert (port["Label"], port["To"]) == ("http", settings_of(report).port)
    assert server_of(report)["Config"]["ports"] == ["http"]
    (service,) = group_of(report)["Services"]
    assert service["PortLabel"] == "http"


def test_updates_replace_three_replicas_one_by_one_after_a_canary(report: Any) -> None:
    group = group_of(report)
    assert report["Job"]["Type"] == "service"
    assert group["Count"] == 3
    update = group["Update"]
    assert (update["Canary"], update["MaxParallel"], update["AutoRevert"]) == (1, 1, True)
    assert update["HealthCheck"] == "checks"
    assert update["MinHealthyTime"] < update["HealthyDeadline"] < update["ProgressDeadline"]
    assert group["RestartPolicy"]["Mode"] == "fail"
    assert group["ReschedulePolicy"]["Unlimited"] is True


def test_consul_checks_readiness_and_liveness(report: Any) -> None:
    (service,) = group_of(report)["Services"]
    assert service["Provider"] == "consul"
    assert service["Meta"]["metrics_path"] == "/metrics"
    assert "prometheus" in service["Tags"]
    checks = {check["Path"]: check for check in service["Checks"]}
    assert set(checks) == {"/ready", "/health"}
    # Nomad must not restart a server that waits for Consul, and must not replace the next one before it is ready.
    assert checks["/ready"]["CheckRestart"] is None
    assert checks["/ready"]["OnUpdate"] == "require_healthy"
    assert checks["/health"]["CheckRestart"]["Limit"] > 0


@pytest.mark.parametrize("seconds", [None, 300])
def test_the_kill_timeout_is_longer_than_the_drain(path: Path, parsed: Parse, seconds: int | None) -> None:
    report = parsed(path, **({} if seconds is None else {"stop_seconds": seconds}))
    task, drain = server_of(report), settings_of(report).stop_timeout
    assert drain == (seconds or 15)
    assert task["KillSignal"] == "SIGTERM"
    assert task["KillTimeout"] >= (drain + CLEANUP_SECONDS) * SECOND
    if seconds is None:  # the limit of a Nomad client with default settings
        assert task["KillTimeout"] <= 30 * SECOND


def test_the_server_container_is_unprivileged(report: Any) -> None:
    config = server_of(report)["Config"]
    assert config["readonly_rootfs"] is True
    assert config["cap_drop"] == ["all"]
    assert config["security_opt"] == ["no-new-privileges"]
    assert "privileged" not in config


def test_the_two_jobs_differ_only_in_the_engine(parsed: Parse) -> None:
    """The files repeat each other, so that each can be read alone."""
    reports = [parsed(path) for path in JOBS]
    engine = {"docker_socket", "docker_gid", "engine_image", "engine_args", "engine_cpu", "engine_disk"}
    with_its_own, with_the_machines = (
        {
            each["Name"]: each["Attributes"]["default"]
            for each in report["Variables"]
            if each["Name"] not in engine
        }
        for report in reports
    )
    assert with_its_own == with_the_machines
    servers = [server_of(report) for report in reports]
    for server in servers:
        (template,) = server["Templates"]
        template["EmbeddedTmpl"] = template["EmbeddedTmpl"].replace("jobs/pyexec-dind", "jobs/pyexec")
        for name in ("volumes", "group_add"):
            server["Config"].pop(name, None)
        for name in ("PYEXEC_DOCKER_SOCKET", "PYEXEC_ENV_CACHE_MB"):
            server["Env"].pop(name, None)
    assert servers[0] == servers[1]
    groups = [{**group_of(report), "Tasks": None} for report in reports]
    assert groups[0] == groups[1]


def test_secrets_come_from_a_nomad_variable(report: Any) -> None:
    (template,) = server_of(report)["Templates"]
    assert template["Envvars"] is True
    assert template["DestPath"].startswith("${NOMAD_SECRETS_DIR}/")
    assert f'nomadVar "nomad/jobs/{report["Job"]["ID"]}"' in template["EmbeddedTmpl"]
    # A stopping task cannot read the variable. Then the file must not be written again without its secrets.
    assert "nomadVarExists" not in template["EmbeddedTmpl"]
    assert {"PYEXEC_CONSUL_TOKEN", "PYEXEC_API_TOKENS"}.isdisjoint(server_of(report)["Env"])


def test_the_docker_socket_is_mounted(parsed: Parse) -> None:
    report = parsed(NOMAD / "pyexec.nomad.hcl", docker_socket="/run/other.sock", docker_gid=4711)
    config = server_of(report)["Config"]
    assert config["volumes"] == [f"/run/other.sock:{settings_of(report).docker_socket}"]
    assert config["group_add"] == ["4711"]


def test_the_docker_daemon_starts_first_and_listens_on_the_server_socket(parsed: Parse) -> None:
    report = parsed(
        NOMAD / "pyexec-dind.nomad.hcl", engine_args='["--registry-mirror=https://mirror.example"]'
    )
    engine = next(task for task in group_of(report)["Tasks"] if task["Name"] == "engine")
    assert engine["Lifecycle"] == {"Hook": "prestart", "Sidecar": True}
    assert engine["Config"]["privileged"] is True
    socket = server_of(report)["Env"]["PYEXEC_DOCKER_SOCKET"]
    assert engine["Config"]["args"] == [
        f"--host=unix://{socket}",
        "--group=10001",
        "--registry-mirror=https://mirror.example",
    ]
    assert "volumes" not in server_of(report)["Config"]
    settings = settings_of(report)
    setups_mb = (settings.max_setups or 0) * settings.setup_memory_mb
    assert setups_mb > 0
    assert engine["Resources"]["MemoryMB"] >= (settings.max_total_memory_mb or 0) + setups_mb + 1024


def test_the_server_has_memory_for_the_code_of_all_evals_that_may_wait(report: Any) -> None:
    settings = settings_of(report)
    waiting_mb = settings.max_queued * settings.max_metadata_mb
    assert server_of(report)["Resources"]["MemoryMB"] >= waiting_mb + 256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count = var.count", "cuont = var.count", "cuont"),
        ("count = var.count", "count = var.cuont", "cuont"),
        ("    task ", "    tsak ", "tsak"),
        ('interval = "5m"', 'interval = "5 minutes"', "5 minutes"),
        ("    restart {", "    restart ", "block definition"),
        # These can be parsed, but a Nomad server refuses them.
        ("check_restart {", 'on_update = "ignore"\ncheck_restart {', "not compatible with check_restart"),
        ('"${var.stop_seconds + 900}s"', '"4m"', "Healthy deadline must be less than progress deadline"),
        ('timeout  = "5s"', 'timeout  = "1ms"', "timeout (1ms) is lower than required minimum timeout"),
    ],
)
def test_invalid_job_files_are_rejected(
    path: Path, parsed: Parse, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = path.read_text()
    assert old in text
    broken = tmp_path / path.name
    broken.write_text(text.replace(old, new))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        parsed(broken)
    assert message in refused.value.stdout


def test_an_unknown_setting_is_detected(path: Path, parsed: Parse, tmp_path: Path) -> None:
    broken = tmp_path / path.name
    broken.write_text(path.read_text().replace("PYEXEC_STOP_TIMEOUT ", "PYEXEC_STOP_TIMOUT "))
    with pytest.raises(SettingsError, match="PYEXEC_STOP_TIMOUT is not a setting"):
        settings_of(parsed(broken))
