"""The operator's settings: environment variables with the prefix PYEXEC_, checked at the start."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from pyexec.domain.enforcement import LIMITS
from pyexec.domain.spec import Limits, Policy
from pyexec.errors import SettingsError

PREFIX = "PYEXEC_"


def _setting(default: Any, doc: str, *, least: float | None = None, allowed: Sequence[str] = ()) -> Any:
    return field(default=default, metadata={"doc": doc, "least": least, "allowed": tuple(allowed)})


@frozen(kw_only=True)
class Settings:
    """One field a setting; the variable is its name in capitals after PYEXEC_."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 picks a free one", least=0)
    log_level: str = _setting("INFO", "least level to log", allowed=("DEBUG", "INFO", "WARNING", "ERROR"))
    log_format: str = _setting("text", "how to log", allowed=("text", "json"))
    api_tokens: tuple[str, ...] = _setting((), "comma-separated bearer tokens; none: no authentication")
    advertise_addr: str | None = _setting(None, "where other replicas reach this one, as http://host:port")
    local_claim: str = _setting(
        "on",
        "whether a replica claims what it takes itself; off leaves every claim to the leader",
        allowed=("on", "off"),
    )
    consul_addr: str | None = _setting(
        None, "Consul, as host:port or https://host:port; none: the embedded log"
    )
    consul_token: str | None = _setting(None, "Consul ACL token")
    consul_prefix: str = _setting("pyexec", "where in Consul's key-value store everything lies")
    consul_ca_file: Path | None = _setting(
        None, "authorities that Consul's certificate may come from, beside the machine's"
    )
    consul_cert_file: Path | None = _setting(None, "our own certificate and key for Consul")
    blob_url: str | None = _setting(None, "large payloads and outputs, as file://, s3://, gs:// or az://")
    adoption_grace: float = _setting(
        20.0, "how long what a dead replica ran may take to be adopted, seconds", least=0
    )
    data_dir: Path = _setting(Path("data"), "where the embedded log and files lie")
    docker_host: str | None = _setting(None, "Docker engine, as unix:///path or tcp://host:port")
    docker_socket: Path | None = _setting(None, "Docker engine by its socket's path")
    docker_runtime: str | None = _setting(None, "Docker runtime for sandboxes, such as runsc")
    seccomp_profile: Path | None = _setting(
        None, "seccomp profile of sandboxes and setups, a JSON file; none: Docker's default"
    )
    allow_unenforced: tuple[str, ...] = _setting(
        (), f"comma-separated limits that need not hold, of {', '.join(LIMITS)}", allowed=LIMITS
    )
    strict: str = _setting(
        "0", "1: no start while programs with network reach this host's services", allowed=("0", "1")
    )
    default_image: str = _setting("python:3.12-slim", "image of a run that names none")
    default_timeout: float = _setting(300.0, "wall time of a run, seconds", least=0.001)
    default_memory_mb: int = _setting(1024, "memory of a run, MiB", least=16)
    default_disk_mb: int = _setting(2048, "size of /work, MiB", least=1)
    default_cpu_shares: int = _setting(1024, "relative CPU weight of a run", least=2)
    default_cpus: float | None = _setting(None, "most CPUs of a run; none: no bound", least=0.01)
    max_timeout: float = _setting(86400.0, "most wall time a run may ask for, seconds", least=0.001)
    max_memory_mb: int = _setting(32768, "most memory a run may ask for, MiB", least=16)
    max_disk_mb: int = _setting(32768, "largest /work a run may ask for, MiB", least=1)
    max_cpu_shares: int = _setting(262144, "highest CPU weight a run may ask for", least=2)
    max_cpus: float | None = _setting(
        None, "most CPUs a run may ask for; none: as many as the engine has", least=0.01
    )
    max_concurrent: int = _setting(4, "programs that run at once on this replica", least=1)
    max_queued: int = _setting(100, "executions that may wait for a slot", least=0)
    max_total_memory_mb: int | None = _setting(
        None, "memory of all sandboxes together, MiB; none: as much as the slots take by default", least=16
    )
    warm_pool: int = _setting(4, "sandboxes kept waiting, of the kinds that are asked for most", least=0)
    warm_memory_mb: int = _setting(1024, "memory that waiting sandboxes may take, 32 MiB each", least=0)
    standby: str = _setting(
        "on",
        "whether an interpreter waits in each sandbox for its program; off starts one at the go-ahead",
        allowed=("on", "off"),
    )
    pids_max: int = _setting(256, "processes and threads of a sandbox", least=8)
    tmp_mb: int = _setting(100, "size of /tmp, MiB", least=1)
    setup_timeout: float = _setting(600.0, "longest setup of an environment, seconds", least=0.001)
    setup_memory_mb: int = _setting(2048, "memory of a setup, MiB", least=64)
    setup_disk_mb: int = _setting(8192, "most that a setup may write, MiB", least=1)
    setup_network: str = _setting(
        "pyexec-setup", "Docker network of setups, made if it is missing; none: nothing can be installed"
    )
    pip_index_url: str | None = _setting(None, "package index; none: the installer's own default")
    ca_bundle: Path | None = _setting(
        None, "certificate authorities for setups, where the network has its own, as one PEM file"
    )
    uv: Path | None = _setting(None, "the installer, a static uv; none: the one installed with the server")
    env_cache_mb: int = _setting(20480, "space for pulled images and environments, MiB", least=0)
    env_max_age: float = _setting(
        86400.0, "when an environment without exact versions is made anew, seconds", least=0
    )
    allowed_images: tuple[str, ...] = _setting(
        (), "comma-separated patterns of images that may be asked for, such as python:*; none: all"
    )
    run_network: str = _setting(
        "pyexec-run", "Docker network of runs with network_disabled false, made if it is missing"
    )
    queue_timeout: float = _setting(300.0, "longest wait for a slot, seconds", least=0.001)
    cleanup_ttl: float = _setting(300.0, "how long an ended execution is kept, seconds", least=0.001)
    stop_timeout: float = _setting(10.0, "how long a stopping server lets programs end, seconds", least=0)
    max_upload_mb: int = _setting(8192, "largest request body, MiB", least=1)
    max_metadata_mb: int = _setting(16, "largest metadata part or eval body, MiB", least=1)
    max_archive_members: int = _setting(65536, "most members of an archive", least=1)
    max_output_bytes: int = _setting(10 * 1024 * 1024, "most a program may print, bytes", least=1)
    max_files_mb: int = _setting(64, "most a run's output_files may bring back, MiB", least=1)
    upload_idle_timeout: float = _setting(60.0, "longest pause in an upload, seconds", least=0.001)

    def policy(self, engine_cpus: int) -> Policy:
        """Defaults and ceilings of a run's limits. An engine refuses more CPUs than it has."""
        ceilings = self._limits("max")
        cpus = min(engine_cpus, ceilings.cpus or engine_cpus)
        return Policy(
            default_image=self.default_image,
            defaults=self._limits("default"),
            ceilings=attrs.evolve(ceilings, cpus=cpus),
            allowed_images=self.allowed_images,
            installs=self.setup_network != "none",
        )

    def _limits(self, kind: str) -> Limits:
        return Limits(
            timeout_seconds=getattr(self, f"{kind}_timeout"),
            network_disabled=True,
            memory_mb=getattr(self, f"{kind}_memory_mb"),
            disk_mb=getattr(self, f"{kind}_disk_mb"),
            cpu_shares=getattr(self, f"{kind}_cpu_shares"),
            cpus=getattr(self, f"{kind}_cpus"),
        )

    def engine_host(self) -> str:
        """Where the Docker engine listens: our setting, else Docker's own variable, else its usual socket."""
        if self.docker_socket is not None:
            return f"unix://{self.docker_socket}"
        return self.docker_host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    def read_seccomp_profile(self) -> str | None:
        """The profile as the engine takes it; raises `SettingsError` when the file is none."""
        if self.seccomp_profile is None:
            return None
        try:
            profile = json.loads(self.seccomp_profile.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"PYEXEC_SECCOMP_PROFILE is {str(self.seccomp_profile)!r}: {error}"
            ) from error
        if not isinstance(profile, dict) or "defaultAction" not in profile:
            raise SettingsError(
                f"PYEXEC_SECCOMP_PROFILE is {str(self.seccomp_profile)!r}; allowed is a seccomp profile, "
                "a JSON object with a defaultAction"
            )
        return json.dumps(profile)

    def memory_budget_mb(self, overhead_mb: int) -> int:
        """The memory of all sandboxes together; by default what the slots take at the default limits, and never
        less than the one largest run that the ceilings allow."""
        if self.max_total_memory_mb is not None:
            return self.max_total_memory_mb
        standard = self.default_memory_mb + self.default_disk_mb + overhead_mb
        return max(self.max_concurrent * standard, self.max_memory_mb + self.max_disk_mb + overhead_mb)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; raises `SettingsError` for the first that is wrong or unknown."""
    known = {PREFIX + a.name.upper(): a for a in attrs.fields(Settings)}
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        if variable not in known:
            raise SettingsError(f"{variable} is not a setting; python-executor-server --help lists them all")
        attribute = known[variable]
        values[attribute.name] = _parse(variable, text, attribute)
    settings = Settings(**values)
    for name in ("timeout", "memory_mb", "disk_mb", "cpu_shares", "cpus"):
        default, most = getattr(settings, f"default_{name}"), getattr(settings, f"max_{name}")
        if default is not None and most is not None and default > most:
            variable = f"{PREFIX}DEFAULT_{name.upper()}"
            raise SettingsError(
                f"{variable} is {default:g}; allowed is at most {PREFIX}MAX_{name.upper()}, {most:g}"
            )
    return settings


CLIENT_VARIABLES = frozenset({"PYEXEC_SERVER", "PYEXEC_TOKEN", "PYEXEC_TEST_IMAGE"})
"""Variables with the same prefix that are for the command line program and the tests."""


def _parse(variable: str, text: str, attribute: "attrs.Attribute[Any]") -> Any:
    kind, least = str(attribute.type), attribute.metadata["least"]
    if text == "" and "None" in kind:
        return None
    try:
        if "tuple" in kind:
            parts = [part.strip() for part in text.split(",") if part.strip()]
            return tuple(_allowed(variable, part, attribute.metadata["allowed"]) for part in parts)
        if "Path" in kind:
            return Path(text)
        if "int" in kind:
            value: float = int(text)
        elif "float" in kind:
            value = float(text)
        else:
            return _allowed(variable, text, attribute.metadata["allowed"])
    except ValueError as error:
        wanted = "a whole number" if "int" in kind else "a number"
        raise SettingsError(f"{variable} is {text!r}; allowed is {wanted}") from error
    if not math.isfinite(value) or (least is not None and value < least):
        raise SettingsError(f"{variable} is {text!r}; allowed is at least {least:g}")
    return value


def _allowed(variable: str, text: str, allowed: Sequence[str]) -> str:
    if allowed and text not in allowed:
        raise SettingsError(f"{variable} is {text!r}; allowed is {', '.join(allowed)}")
    if not text:
        raise SettingsError(f"{variable} is empty; leave it out or give it a value")
    return text


def describe_settings() -> str:
    """Every setting with its default, a line each."""
    lines = []
    for attribute in attrs.fields(Settings):
        default = ",".join(attribute.default) if isinstance(attribute.default, tuple) else attribute.default
        shown = "none" if default in (None, "") else default
        lines.append(f"  {PREFIX + attribute.name.upper():30} {attribute.metadata['doc']} [{shown}]")
    return "\n".join(lines)


def from_environment() -> Settings:
    """The settings of this process."""
    return read_settings(os.environ)
