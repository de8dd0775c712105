"""The operator's settings: environment variables with the prefix PYEXEC_, checked at the start."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from pyexec.domain.isolation import LIMITS
from pyexec.domain.spec import Limits, Policy
from pyexec.errors import SettingsError

PREFIX = "PYEXEC_"


def _setting(
    section: str, default: Any, doc: str, *, least: float | None = None, allowed: Sequence[str] = ()
) -> Any:
    about = {"section": section, "doc": doc, "least": least, "allowed": tuple(allowed)}
    return field(default=default, metadata=about)


_server = partial(_setting, "The server")
_engine = partial(_setting, "Docker and sandboxes")
_run = partial(_setting, "Limits of a run")
_capacity = partial(_setting, "How much at once")
_images = partial(_setting, "Images and packages")
_sizes = partial(_setting, "Sizes and retention")
_replicas = partial(_setting, "Several servers")


@frozen(kw_only=True)
class Settings:
    """One field a setting; the variable is its name in capitals after PYEXEC_."""

    host: str = _server("127.0.0.1", "address to listen on")
    port: int = _server(8080, "port to listen on; 0 picks a free one", least=0)
    log_level: str = _server("INFO", "least level to log", allowed=("DEBUG", "INFO", "WARNING", "ERROR"))
    log_format: str = _server("text", "how to log", allowed=("text", "json"))
    access_log: str = _server("on", "whether each request is logged", allowed=("on", "off"))
    api_tokens: tuple[str, ...] = _server((), "comma-separated bearer tokens; none: no authentication")
    stop_timeout: float = _server(10.0, "how long a stopping server lets programs end, seconds", least=0)
    data_dir: Path = _server(Path("data"), "where the embedded log and files lie")

    docker_host: str | None = _engine(
        None, "Docker engine, as unix:///path or tcp://host:port; none: DOCKER_HOST, else its usual socket"
    )
    docker_socket: Path | None = _engine(None, "the same by its socket's path, which goes first")
    docker_timeout: float = _engine(
        60.0, "how long Docker may take to answer before it counts as away, seconds", least=0.1
    )
    docker_runtime: str | None = _engine(
        None, "Docker runtime for sandboxes, such as runsc; none: Docker's default"
    )
    seccomp_profile: Path | None = _engine(
        None, "seccomp profile of sandboxes and setups, a JSON file; none: Docker's default"
    )
    standby: str = _engine(
        "on",
        "whether an interpreter waits in each sandbox for its program; off starts one at the go-ahead",
        allowed=("on", "off"),
    )
    run_network: str = _engine(
        "pyexec-run", "Docker network of runs with network_disabled false, made if it is missing"
    )
    pids_max: int = _engine(256, "processes and threads of a sandbox", least=8)
    tmp_mb: int = _engine(100, "size of /tmp, MiB", least=1)
    allow_unenforced: tuple[str, ...] = _engine(
        (), "comma-separated limits that need not hold on this engine", allowed=LIMITS
    )
    strict: str = _engine(
        "0", "1: no start while programs with network reach services of this host", allowed=("0", "1")
    )

    default_timeout: float = _run(300.0, "wall time of a run, seconds", least=0.001)
    max_timeout: float = _run(86400.0, "most wall time a run may ask for, seconds", least=0.001)
    default_memory_mb: int = _run(1024, "memory of a run, MiB", least=16)
    max_memory_mb: int = _run(32768, "most memory a run may ask for, MiB", least=16)
    default_disk_mb: int = _run(2048, "size of /work, MiB", least=1)
    max_disk_mb: int = _run(32768, "largest /work a run may ask for, MiB", least=1)
    default_cpu_shares: int = _run(1024, "relative CPU weight of a run", least=2)
    max_cpu_shares: int = _run(262144, "highest CPU weight a run may ask for", least=2)
    default_cpus: float | None = _run(None, "most CPUs of a run; none: no bound", least=0.01)
    max_cpus: float | None = _run(
        None, "most CPUs a run may ask for; none: as many as the engine has", least=0.01
    )

    max_concurrent: int = _capacity(4, "programs that run at once on this replica", least=1)
    max_queued: int = _capacity(
        100,
        "executions that may wait for a slot; with 0, who comes while all are taken is refused (one is free again a "
        "moment after its run was answered)",
        least=0,
    )
    queue_timeout: float = _capacity(300.0, "longest wait for a slot, seconds", least=0.001)
    max_total_memory_mb: int | None = _capacity(
        None,
        "memory of all sandboxes together, MiB; none: what the slots take by default or the largest run may, and no "
        "more than the machine has",
        least=16,
    )
    warm_pool: int = _capacity(4, "sandboxes kept waiting, of the kinds that are asked for most", least=0)
    warm_memory_mb: int = _capacity(1024, "memory that waiting sandboxes may take, MiB, 32 each", least=0)

    default_image: str = _images("python:3.12-slim", "image of a run that names none")
    allowed_images: tuple[str, ...] = _images(
        (), "comma-separated patterns of images that may be asked for, such as python:*; none: all"
    )
    setup_timeout: float = _images(600.0, "longest setup of an environment, seconds", least=0.001)
    setup_memory_mb: int = _images(2048, "memory of a setup, MiB", least=64)
    setup_disk_mb: int = _images(8192, "most that a setup may write, MiB", least=1)
    setup_network: str = _images(
        "pyexec-setup", "Docker network of setups, made if it is missing; none: nothing can be installed"
    )
    pip_index_url: str | None = _images(None, "package index; none: the installer's own default")
    ca_bundle: Path | None = _images(
        None, "certificate authorities for setups, where the network has its own, as one PEM file"
    )
    uv: Path | None = _images(None, "the installer, a static uv; none: the one installed with the server")
    env_cache_mb: int = _images(20480, "space for pulled images and environments, MiB", least=0)
    env_max_age: float = _images(
        86400.0, "when an environment without exact versions is made anew, seconds", least=0
    )

    max_upload_mb: int = _sizes(8192, "largest request body, MiB", least=1)
    upload_idle_timeout: float = _sizes(60.0, "longest pause in an upload, seconds", least=0.001)
    max_metadata_mb: int = _sizes(16, "largest metadata part or eval body, MiB", least=1)
    max_archive_members: int = _sizes(65536, "most members of an archive", least=1)
    max_output_bytes: int = _sizes(10 * 1024 * 1024, "most a program may print, bytes", least=1)
    max_files_mb: int = _sizes(64, "most a run's output_files may bring back, MiB", least=1)
    blob_url: str | None = _sizes(
        None, "where large payloads and outputs lie, as file://, s3://, gs:// or az://; none: in the log"
    )
    cleanup_ttl: float = _sizes(300.0, "how long an ended execution is kept, seconds", least=0.001)

    consul_addr: str | None = _replicas(
        None, "Consul, as host:port or https://host:port; none: the embedded log"
    )
    consul_token: str | None = _replicas(None, "Consul ACL token")
    consul_prefix: str = _replicas("pyexec", "where in Consul's key-value store everything lies")
    consul_ca_file: Path | None = _replicas(
        None, "authorities that Consul's certificate may come from, beside the machine's"
    )
    consul_cert_file: Path | None = _replicas(None, "our own certificate and key for Consul")
    advertise_addr: str | None = _replicas(None, "where other replicas reach this one, as http://host:port")
    local_claim: str = _replicas(
        "on",
        "whether a replica claims what it takes itself; off leaves every claim to the leader",
        allowed=("on", "off"),
    )
    adoption_grace: float = _replicas(
        20.0, "how long what a dead replica ran may take to be adopted, seconds", least=0
    )

    def policy(self, engine_cpus: int) -> Policy:
        """Defaults and ceilings of a run's limits. An engine refuses more CPUs than it has."""
        ceilings = self.limits("max")
        cpus = min(engine_cpus, ceilings.cpus or engine_cpus)
        return Policy(
            default_image=self.default_image,
            defaults=self.limits("default"),
            ceilings=attrs.evolve(ceilings, cpus=cpus),
            allowed_images=self.allowed_images,
            setup_allowed=self.setup_network != "none",
        )

    def limits(self, kind: str) -> Limits:
        """The limits of a run that are the `default`, or the `max`, as far as settings say."""
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

    def memory_budget_mb(self, overhead_mb: int, engine_mb: int) -> int:
        """The memory of all sandboxes together; by default what the slots take at the default limits, and never
        less than the one largest run that the ceilings allow and the engine's machine can hold."""
        if self.max_total_memory_mb is not None:
            return self.max_total_memory_mb
        standard = self.default_memory_mb + self.default_disk_mb + overhead_mb
        largest = self.max_memory_mb + self.max_disk_mb + overhead_mb
        return max(self.max_concurrent * standard, min(largest, engine_mb))


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; raises `SettingsError` for the first that is wrong or unknown."""
    settings = Settings(**dict(_read(variable, environ[variable]) for variable in _ours(environ)))
    for name in ("timeout", "memory_mb", "disk_mb", "cpu_shares", "cpus"):
        default, most = getattr(settings, f"default_{name}"), getattr(settings, f"max_{name}")
        if default is not None and most is not None and default > most:
            variable = f"{PREFIX}DEFAULT_{name.upper()}"
            raise SettingsError(
                f"{variable} is {default:g}; allowed is at most {PREFIX}MAX_{name.upper()}, {most:g}"
            )
    return settings


def wrong_settings(environ: Mapping[str, str]) -> Sequence[SettingsError]:
    """All that is wrong with the settings in `environ`."""
    found = []
    for variable in _ours(environ):
        try:
            _read(variable, environ[variable])
        except SettingsError as error:
            found.append(error)
    if not found:
        try:
            read_settings(environ)
        except SettingsError as error:
            found.append(error)
    return found


def _ours(environ: Mapping[str, str]) -> Sequence[str]:
    return [name for name in environ if name.startswith(PREFIX) and name not in CLIENT_VARIABLES]


def _read(variable: str, text: str) -> tuple[str, Any]:
    """The field that a variable sets, and its value."""
    attribute = next((a for a in attrs.fields(Settings) if PREFIX + a.name.upper() == variable), None)
    if attribute is None:
        raise SettingsError(f"{variable} is not a setting; python-executor-server --help lists them all")
    return attribute.name, _parse(variable, text, attribute)


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


def from_environment() -> Settings:
    """The settings of this process."""
    return read_settings(os.environ)
