"""What the settings mean to each part of a server."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from pyexec.adapters.docker.config import Isolation
from pyexec.domain.output_files import FileLimits
from pyexec.domain.spec import MEBIBYTE, Policy, Spec
from pyexec.ports import BlobStore, ContainerSpec, EngineIdentity
from pyexec.sandbox import protocol
from pyexec.sandbox.environments.setup import SetupConfig, installed_uv
from pyexec.sandbox.isolation.isolation_check import IsolationCheckConfig
from pyexec.sandbox.pool.pool import SandboxKind
from pyexec.services.preparation import kind_of
from pyexec.settings import Settings

SETUP_PIDS = 1024
"""Installers compile with as many threads as the machine has processors, and more."""
DOCKER_PORTS = (2375, 2376)
"""Where an engine usually listens that does so for a network, without and with TLS."""
SUPERVISOR_MB = 32
"""The supervisor, and the kernel's own."""
WAITING_MB = 32
"""What a waiting sandbox takes of the machine's memory, at most (measured: 15, Docker's process for it included)."""


def setup_config(settings: Settings, labels: Mapping[str, str]) -> SetupConfig:
    """The bounds of setups; `labels` are those of every container of the replica."""
    return SetupConfig(
        labels=labels,
        network=settings.setup_network,
        timeout_seconds=settings.setup_timeout,
        memory_bytes=settings.setup_memory_mb * MEBIBYTE,
        disk_bytes=settings.setup_disk_mb * MEBIBYTE,
        pids_max=max(settings.pids_max, SETUP_PIDS),
        uv=settings.uv or installed_uv(),
        index_url=settings.pip_index_url,
        ca_bundle=settings.ca_bundle,
    )


def overhead_mb(settings: Settings) -> int:
    """What a sandbox takes beside the program's memory and files."""
    return settings.tmp_mb + SUPERVISOR_MB


def standard_kind(policy: Policy) -> SandboxKind:
    """The sandbox of a program that asks for nothing."""
    return kind_of(Spec(docker_image=policy.default_image, limits=policy.defaults))


def container_spec(settings: Settings, labels: Mapping[str, str], kind: SandboxKind) -> ContainerSpec:
    """The container behind a kind of sandbox. The memory wall holds memory and files together, because files on
    a tmpfs are memory; the supervisor tells them apart inside."""
    return ContainerSpec(
        image=kind.image,
        command=protocol.supervisor_command(prestart=settings.standby == "on"),
        labels=labels,
        memory_bytes=(kind.memory_mb + kind.disk_mb + overhead_mb(settings)) * MEBIBYTE,
        work_bytes=kind.disk_mb * MEBIBYTE,
        tmp_bytes=settings.tmp_mb * MEBIBYTE,
        shm_bytes=kind.memory_mb * MEBIBYTE,
        log_bytes=2 * (settings.max_output_bytes + settings.max_files_mb * MEBIBYTE) + MEBIBYTE,
        pids_max=settings.pids_max,
        cpu_shares=kind.cpu_shares,
        cpus=kind.cpus,
        network=settings.run_network if kind.network else None,
    )


def file_limits(settings: Settings, blobs: BlobStore) -> FileLimits:
    """The files of a run are one blob, which the store must be able to take."""
    asked = settings.max_files_mb * MEBIBYTE
    return FileLimits(bytes_max=asked if blobs.bytes_max is None else min(asked, blobs.bytes_max))


def networks(settings: Settings) -> frozenset[str]:
    """The engine's networks of runs and setups that may have one."""
    return frozenset({settings.run_network, settings.setup_network} - {"none"})


def isolation(settings: Settings) -> Isolation:
    """What holds every container. Raises `SettingsError` when the seccomp profile cannot be used."""
    return Isolation(runtime=settings.docker_runtime, seccomp_profile=settings.read_seccomp_profile())


def isolation_check_config(
    settings: Settings, identity: EngineIdentity, address: str
) -> IsolationCheckConfig:
    """What is to be proven of sandboxes, for a server that listens at `address`."""
    consul = settings.consul_addr or ""
    services = (address, settings.engine_host(), consul if "://" in consul else f"//{consul}")
    ports = {port for service in services if (port := urlsplit(service).port)}
    return IsolationCheckConfig(
        default_image=settings.default_image,
        unsupported=identity.unenforced,
        accepted=settings.allow_unenforced,
        networks=networks(settings),
        ports=sorted(ports | set(DOCKER_PORTS)),
        strict=settings.strict == "1",
    )
