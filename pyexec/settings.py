"""The server's settings, with their defaults, bounds and help texts."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import field, frozen

from pyexec.domain.isolation import LIMITS

PREFIX = "PYEXEC_"
# 31 years, because some clocks of Python fail beyond 292. 1 PiB, because Docker rejects 2**63 bytes.
UNITS_MAX = {"in seconds": 10**9, "in MiB": 2**30, "in bytes": 2**50}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _setting(
    section: str,
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Describe one setting. A `maximum` needs a `minimum`. A unit in `doc` has its own."""
    maximum = next((top for unit, top in UNITS_MAX.items() if unit in doc), maximum)
    values = {"choices": tuple(choices), "minimum": minimum, "maximum": maximum}
    return field(default=default, metadata={"section": section, "doc": doc} | values)


_server = partial(_setting, "The server")
_engine = partial(_setting, "Docker and sandboxes")
_run = partial(_setting, "Limits of a run")
_cpu_shares = partial(_run, 1024, minimum=2, maximum=2**18)  # the bounds of Linux
_capacity = partial(_setting, "Capacity")
_images = partial(_setting, "Images and packages")
_sizes = partial(_setting, "Sizes and retention")
_webhooks = partial(_setting, "Webhooks")
_replicas = partial(_setting, "Multiple replicas")


@frozen(kw_only=True)
class Settings:
    """All settings, one field each. The variable of a field is PYEXEC_ and the field's name in capitals."""

    host: str = _server("127.0.0.1", "address to listen on")
    port: int = _server(8080, "port to listen on; 0 picks a free port", minimum=0, maximum=65535)
    log_level: str = _server(
        "INFO", "lowest level of messages to log", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    log_format: str = _server("text", "format of log lines", choices=("text", "json"))
    access_log: bool = _server(True, "log each HTTP request")
    api_tokens: tuple[str, ...] = _server(
        (), "bearer tokens that clients may use, as the tenant default; none: no authentication"
    )
    tenants_file: Path | None = _server(
        None, "file with the tokens, weight and limits of each tenant, in TOML; none: one tenant"
    )
    stop_timeout: float = _server(
        10.0, "time that running programs get to end when the server shuts down, in seconds", minimum=0
    )
    data_dir: Path = _server(Path("data"), "directory of the embedded event log and of stored files")

    docker_host: str | None = _engine(
        None,
        "address of the Docker engine, as unix:///path or tcp://host:port; none: DOCKER_HOST if set, else "
        "unix:///var/run/docker.sock",
    )
    docker_socket: Path | None = _engine(
        None, "path of the Docker engine's socket; overrides PYEXEC_DOCKER_HOST"
    )
    docker_timeout: float = _engine(
        60.0,
        "time limit of requests to Docker, in seconds; after it, Docker counts as unavailable",
        minimum=0.1,
    )
    docker_runtime: str | None = _engine(
        None, "Docker runtime of sandboxes, such as runsc; none: Docker's default"
    )
    seccomp_profile: Path | None = _engine(
        None,
        "seccomp profile of sandboxes and setup containers, a JSON file; none: the server's own, an allowlist",
    )
    standby: bool = _engine(
        True, "prestart an interpreter in each idle sandbox; off: start the interpreter with the program"
    )
    sandbox_reuse: bool = _engine(
        True,
        "run several programs of a tenant in the same sandbox, one after another, if it proves to be clean between "
        "them; off: a new sandbox for each program",
    )
    sandbox_runs_max: int = _engine(1000, "maximum number of programs in one sandbox", minimum=1)
    run_network: str = _engine(
        "pyexec-run",
        "Docker network of runs with network access (network_disabled: false); created if it is missing",
    )
    dns: tuple[str, ...] = _engine(
        (),
        "addresses of the name servers that programs and setups with network ask; none: those of the engine's machine; "
        "docker: Docker's own resolver, which knows the names of containers",
    )
    firewall: str = _engine(
        "auto",
        "auto: block access to the host and to the cloud's metadata address from the networks that the server has "
        "created, if it may change the firewall; off: leave the machine's firewall unchanged",
        choices=("auto", "off"),
    )
    sandbox_uids: range = _engine(
        range(100000, 101000),
        "user ids of sandboxes, as FIRST-LAST; each sandbox on the engine has one of its own; a single id is shared by "
        "all sandboxes",
    )
    pids_max: int = _engine(256, "most processes and threads in a sandbox", minimum=8, maximum=2**22)
    allow_unenforced: tuple[str, ...] = _engine(
        (), "limits that this Docker engine need not enforce", choices=LIMITS
    )
    strict: bool = _engine(
        False,
        "do not start if programs with network access can reach services of this host or the cloud's metadata "
        "address",
    )

    default_timeout: float = _run(300.0, "default time limit (wall time), in seconds", minimum=0.001)
    max_timeout: float = _run(
        86400.0, "highest time limit that a request may ask for, in seconds", minimum=0.001
    )
    default_memory_mb: int = _run(1024, "default memory limit, in MiB", minimum=16)
    max_memory_mb: int = _run(32768, "highest memory limit that a request may ask for, in MiB", minimum=16)
    default_disk_mb: int = _run(
        2048, "default limit of the files in /work and /tmp together, in MiB", minimum=1
    )
    max_disk_mb: int = _run(32768, "highest disk limit that a request may ask for, in MiB", minimum=1)
    default_cpu_shares: int = _cpu_shares("default CPU weight, relative to other runs")
    max_cpu_shares: int = _cpu_shares("highest CPU weight that a request may ask for")
    default_cpus: float | None = _run(
        None, "default limit of CPUs; none: PYEXEC_MAX_CPUS if it is set, else no limit", minimum=0.01
    )
    max_cpus: float | None = _run(
        None, "highest limit of CPUs that a request may ask for; none: all CPUs of the engine", minimum=0.01
    )
    default_cpu_seconds: float | None = _run(
        None,
        "default limit of processor time, in seconds; none: PYEXEC_MAX_CPU_SECONDS if it is set, else no limit",
        minimum=0.01,
    )
    max_cpu_seconds: float | None = _run(
        None,
        "highest limit of processor time that a request may ask for, in seconds; none: no ceiling",
        minimum=0.01,
    )

    max_concurrent: int = _capacity(
        4, "number of slots: programs that run at the same time on this replica", minimum=1
    )
    max_queued: int = _capacity(
        100,
        "maximum number of executions of a tenant that wait for a slot or for a setup; 0 rejects requests when all "
        "slots are busy (a slot becomes free a moment after its run has been answered)",
        minimum=0,
    )
    queue_timeout: float = _capacity(
        300.0, "maximum time to wait for a slot or for a setup to begin, in seconds", minimum=0.001
    )
    max_total_memory_mb: int | None = _capacity(
        None,
        "maximum memory of all sandboxes of this replica together, in MiB; none: enough for all slots at the default "
        "limits and one run at the ceilings, at most the machine's memory minus 1 GiB (below 8 GiB: minus an eighth)",
        minimum=16,
    )
    max_sessions: int = _capacity(16, "maximum number of open sessions on this replica", minimum=0)
    session_idle_timeout: float = _capacity(
        600.0, "default time without requests after which a session is closed, in seconds", minimum=1
    )
    max_session_idle_timeout: float = _capacity(
        3600.0, "highest idle timeout that a request may ask for, in seconds", minimum=1
    )
    session_lifetime: float = _capacity(
        86400.0, "default and highest lifetime of a session, in seconds", minimum=1
    )
    warm_pool: int = _capacity(
        4, "number of idle sandboxes to keep ready, of the most requested kinds", minimum=0
    )
    warm_memory_mb: int = _capacity(
        1024, "maximum memory of idle sandboxes together, in MiB; each counts as 32 MiB", minimum=0
    )

    default_image: str = _images("python:3.12-slim", "image of runs that name none")
    allowed_images: tuple[str, ...] = _images(
        (), "patterns of images that requests may name, such as python:* or ghcr.io/team/*; none: all images"
    )
    max_setups: int | None = _images(
        None,
        "number of setups (pulls of images and builds of environments) that run at the same time on this replica; "
        "further ones wait; none: one per processor, limited to the setups whose memory limits fit in half of the "
        "engine's memory; at least one",
        minimum=1,
    )
    setup_timeout: float = _images(
        600.0, "time limit for the setup of an environment, in seconds", minimum=0.001
    )
    setup_memory_mb: int = _images(2048, "memory limit of a setup, in MiB", minimum=64)
    setup_disk_mb: int = _images(8192, "maximum disk space that a setup may use, in MiB", minimum=1)
    setup_network: str = _images(
        "pyexec-setup",
        "Docker network of setups, created if it is missing; none: package installation is disabled",
    )
    pip_index_url: str | None = _images(None, "URL of the package index; none: the installer's default")
    pip_proxy: str | None = _images(
        None,
        "HOST:PORT of this server's proxy for PYEXEC_PIP_INDEX_URL, which hides the URL's password from setups; none: "
        "setups connect to the index directly",
    )
    ca_bundle: Path | None = _images(
        None, "certificate authorities that setups trust, a PEM file; none: those of the image"
    )
    uv: Path | None = _images(
        None, "path of the package installer, a statically linked uv; none: the uv installed with the server"
    )
    env_cache_mb: int = _images(20480, "disk space for pulled images and environments, in MiB", minimum=0)
    env_max_age: float = _images(
        86400.0,
        "maximum age of an environment with commands or without exact versions, in seconds; then it is built again",
        minimum=0,
    )

    max_upload_mb: int = _sizes(8192, "maximum size of a request body, in MiB", minimum=1)
    upload_idle_timeout: float = _sizes(60.0, "maximum pause within an upload, in seconds", minimum=0.001)
    max_metadata_mb: int = _sizes(
        16, "maximum size of the metadata part or of an eval body, in MiB", minimum=1
    )
    max_archive_members: int = _sizes(65536, "maximum number of members in an archive", minimum=1)
    max_output_bytes: int = _sizes(
        10 * 1024 * 1024, "maximum output of a program, stdout and stderr together, in bytes", minimum=1
    )
    max_display_bytes: int = _sizes(
        8 * 1024 * 1024,
        "maximum size of a run's displays together, as JSON, in bytes; with Consul and without PYEXEC_BLOB_URL, at "
        "most 4194304",
        minimum=0,
    )
    max_files_mb: int = _sizes(64, "maximum size of a run's output files together, in MiB", minimum=1)
    blob_url: str | None = _sizes(
        None,
        "store for archives, large outputs and output files, as file://, s3://, gs:// or az://; none: the data "
        "directory, or Consul if it is used",
    )
    cleanup_ttl: float = _sizes(
        300.0, "retention: time after its end at which an execution is deleted, in seconds", minimum=0.001
    )

    webhook_hosts: tuple[str, ...] = _webhooks(
        (),
        "hosts to which webhooks may be sent: names such as hooks.example.com or *.example.com; http:// before a name "
        "allows http, :PORT after it another port; addresses and networks such as 10.0.0.0/8, which allow names to "
        "resolve to them; none: webhooks are disabled",
    )
    webhook_secrets: tuple[str, ...] = _webhooks(
        (), "secrets that sign webhooks, each whsec_ followed by base64; more than one to rotate them"
    )
    webhook_max_age: float = _webhooks(
        86400.0,
        "time after the end of an execution at which an undelivered webhook is dropped, in seconds; until then, the "
        "execution is kept",
        minimum=0,
    )

    consul_addr: str | None = _replicas(
        None, "address of Consul, as host:port or https://host:port; none: the embedded event log"
    )
    consul_token: str | None = _replicas(None, "ACL token for Consul")
    consul_prefix: str = _replicas("pyexec", "prefix of all keys in Consul's key-value store")
    consul_ca_file: Path | None = _replicas(
        None, "certificate authorities to trust for Consul besides the system's, a PEM file"
    )
    consul_cert_file: Path | None = _replicas(None, "client certificate and key for Consul, a PEM file")
    advertise_addr: str | None = _replicas(
        None,
        "address at which other replicas reach this one, as http://host:port; none: the listening address",
    )
    local_claim: bool = _replicas(
        True, "claim executions on the replica that receives them; off: only the leader claims"
    )
    adoption_grace: float = _replicas(
        20.0, "time that other replicas get to adopt a dead replica's programs, in seconds", minimum=0
    )

    @property
    def is_open(self) -> bool:
        """True if every caller that can connect may run programs, and not only those on this machine."""
        return self.host not in LOOPBACK and not (self.api_tokens or self.tenants_file)

    def engine_host(self) -> str:
        """Return the address of the Docker engine, from PYEXEC_DOCKER_SOCKET, PYEXEC_DOCKER_HOST or DOCKER_HOST."""
        if self.docker_socket is not None:
            return f"unix://{self.docker_socket}"
        return self.docker_host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
