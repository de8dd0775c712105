"""Build everything about sandboxes from the settings: limits, networks, environments, the pool, the isolation check."""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from pyexec.adapters.docker.config import DOCKER_RESOLVER, SecurityOptions
from pyexec.adapters.docker.engine import DockerEngine
from pyexec.adapters.index_proxy import serve_index
from pyexec.addresses import port_of
from pyexec.domain.seccomp.profile import docker_profile
from pyexec.domain.spec import MEBIBYTE, Policy, Spec
from pyexec.errors import EngineError, SettingsError
from pyexec.guest.session_lines import LINE_BYTES_MAX
from pyexec.guest.wire import REPORT_BYTES_EXTRA
from pyexec.limits import policy_of
from pyexec.metrics import Meter
from pyexec.ports import ContainerSpec, EngineIdentity
from pyexec.sandbox import guest_source
from pyexec.sandbox.environments.environments import Environments, EnvironmentsConfig
from pyexec.sandbox.environments.setup import Setup, SetupConfig
from pyexec.sandbox.isolation_check import IsolationCheck, IsolationCheckConfig
from pyexec.sandbox.pool.kind_queue import SandboxKind
from pyexec.sandbox.pool.pool import Pool
from pyexec.sandbox.pool.returns import ReusePolicy
from pyexec.services.preparation import kind_of
from pyexec.settings import Settings
from pyexec.wiring.setup_files import count_certificates, find_installer

logger = logging.getLogger(__name__)

SETUP_PIDS_MIN = 1024
"""A compiler in a setup starts at least as many threads as the machine has processors."""
DOCKER_PORTS = (2375, 2376)
"""The usual ports of a Docker engine that listens on a network, without and with TLS."""
SUPERVISOR_MB = 32
"""Memory of the supervisor, including the kernel's memory for its processes."""
DISK_OVERSHOOT_MB = 100
"""How much a fast program can write beyond its disk limit before the supervisor stops it, in MiB."""
OVERHEAD_MB = SUPERVISOR_MB + DISK_OVERSHOOT_MB
"""Memory of a sandbox in addition to the limits of memory and disk."""
IDLE_SANDBOX_MB = 32
"""Upper bound for the memory of an idle sandbox. Measured: 15, including Docker's process for the container."""
KIND_LABEL = "pyexec.kind"
"""Label of containers of interpreter sessions, with the value `session`: they outlive their replica."""
_IPV4 = re.compile(r"\d+(\.\d+){3}")

IndexSource = Callable[[], AbstractContextManager[str | None]]
"""Yields the URL of the package index for one setup."""


def build_environments(
    settings: Settings,
    labels: Mapping[str, str],
    engine: DockerEngine,
    identity: EngineIdentity,
    isolation_check: IsolationCheck,
    index: IndexSource,
    meter: Meter,
) -> Environments:
    """Build the part that finds, pulls and builds images. Every container of the replica gets `labels`."""
    return Environments(
        engine.images,
        Setup(engine, _setup_config(settings, labels, index)),
        EnvironmentsConfig(
            cache_bytes_max=settings.env_cache_mb * MEBIBYTE,
            age_seconds_max=settings.env_max_age,
            architecture=identity.architecture,
            index=_without_password(settings.pip_index_url or ""),
        ),
        isolation_check.ensure_passed,
        meter=meter,
    )


def build_pool(
    settings: Settings,
    labels: Mapping[str, str],
    engine: DockerEngine,
    identity: EngineIdentity,
    environments: Environments,
    busy: Callable[[], bool],
    meter: Meter,
) -> Pool:
    """Build the pool of idle sandboxes."""
    return Pool(
        engine,
        default_kind=default_kind(policy_of(settings, identity.cpus)),
        size=min(settings.warm_pool, settings.warm_memory_mb // IDLE_SANDBOX_MB),
        parallel=identity.cpus,
        image_of=environments.get_image,
        spec_of=partial(container_spec, settings, labels),
        busy=busy,
        reuse=ReusePolicy(
            enabled=settings.sandbox_reuse,
            runs_max=settings.sandbox_runs_max,
            log_bytes_max=log_bytes(settings) // 2,
        ),
        meter=meter,
    )


def default_kind(policy: Policy) -> SandboxKind:
    """Return the kind of sandbox for a request without options."""
    return kind_of(Spec(docker_image=policy.default_image, limits=policy.defaults))


def container_spec(settings: Settings, labels: Mapping[str, str], kind: SandboxKind) -> ContainerSpec:
    """Return the container for a kind of sandbox.

    The container's memory limit holds memory and files together, because files on a tmpfs are memory. The supervisor
    enforces each of the two inside."""
    command = guest_source.session_command if kind.session else guest_source.supervisor_command
    return ContainerSpec(
        image=kind.image,
        command=command(prestart=settings.standby),
        labels={**labels, KIND_LABEL: "session"} if kind.session else labels,
        attachable=kind.session,
        # Each of the two directories takes at most disk_mb, so a small limit cannot be exceeded by more.
        memory_bytes=(kind.memory_mb + kind.disk_mb + SUPERVISOR_MB + min(kind.disk_mb, DISK_OVERSHOOT_MB))
        * MEBIBYTE
        + (session_buffer_bytes(settings) if kind.session else 0),
        disk_bytes=kind.disk_mb * MEBIBYTE,
        # A program that fills it exceeds its memory limit, and leaves memory for the supervisor.
        shm_bytes=(kind.memory_mb + SUPERVISOR_MB // 4) * MEBIBYTE,
        log_bytes=log_bytes(settings),
        pids_max=settings.pids_max,
        cpu_shares=kind.cpu_shares,
        cpus=kind.cpus,
        network=settings.run_network if kind.network else None,
    )


def session_buffer_bytes(settings: Settings) -> int:
    """Return the memory of a session's supervisor for the frames of a cell, twice as they grow, for its code, which it
    copies to the interpreter, and for a long line."""
    frames_bytes = settings.max_output_bytes + settings.max_display_bytes + REPORT_BYTES_EXTRA
    return 2 * (frames_bytes + settings.max_metadata_mb * MEBIBYTE + LINE_BYTES_MAX)


def networks(settings: Settings) -> frozenset[str]:
    """Return the engine's networks for runs and setups."""
    return frozenset({settings.run_network, settings.setup_network} - {"none"})


def security_options(settings: Settings) -> SecurityOptions:
    """Return the runtime, the seccomp profiles and the name servers of all containers.

    Raises `SettingsError` if one of them cannot be used."""
    own = _own_seccomp_profile(settings)
    return SecurityOptions(
        runtime=settings.docker_runtime,
        sandbox_profile=own or docker_profile(for_setup=False),
        setup_profile=own or docker_profile(for_setup=True),
        replaceable=own is None,
        name_servers=_name_servers(settings),
        sandbox_uids=settings.sandbox_uids,
    )


def _own_seccomp_profile(settings: Settings) -> str | None:
    """Return the profile that the operator has configured, as JSON text."""
    if settings.seccomp_profile is None:
        return None
    setting = f"PYEXEC_SECCOMP_PROFILE is {str(settings.seccomp_profile)!r}"
    try:
        profile = json.loads(settings.seccomp_profile.read_bytes())
    except OSError as error:
        raise SettingsError(f"{setting}, which cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        allowed = "a seccomp profile, a JSON object with a defaultAction"
        raise SettingsError(f"{setting}, which is not JSON: {reason}; allowed: {allowed}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise SettingsError(f"{setting}; allowed: a seccomp profile, a JSON object with a defaultAction")
    return json.dumps(profile)


def _name_servers(settings: Settings) -> Sequence[str]:
    try:
        if settings.dns == DOCKER_RESOLVER:
            return DOCKER_RESOLVER
        return [str(ip_address(text)) for text in settings.dns]
    except ValueError as error:
        allowed = "a comma-separated list of IP addresses, or docker"
        raise SettingsError(f"PYEXEC_DNS is {','.join(settings.dns)!r}; allowed: {allowed}") from error


def isolation_check_config(
    settings: Settings, identity: EngineIdentity, address: str
) -> IsolationCheckConfig:
    """Return the configuration of the isolation check, for a server that listens at `address`."""
    consul = settings.consul_addr or ""
    services = (address, settings.engine_host(), consul if "://" in consul else f"//{consul}")
    ports = {port for service in services if (port := port_of(service))}
    return IsolationCheckConfig(
        default_image=settings.default_image,
        uids=settings.sandbox_uids,
        unsupported=identity.unsupported,
        accepted=settings.allow_unenforced,
        networks=networks(settings),
        ports=sorted(ports | set(DOCKER_PORTS)),
        strict=settings.strict,
        docker_resolver=settings.dns == DOCKER_RESOLVER,
    )


async def prepare_networks(settings: Settings, engine: DockerEngine) -> None:
    """Create the networks for runs and setups, and close the host to them. If the latter fails, the isolation check
    warns of what is reachable."""
    for network in networks(settings):
        await engine.ensure_network(network)
        if settings.firewall == "auto":
            try:
                await engine.firewall.apply(network, _allowed_services(settings, network))
            except EngineError as error:
                logger.info("the firewall of the network %s is not changed: %s", network, error)


def _allowed_services(settings: Settings, network: str) -> Sequence[str]:
    """Return the services that containers in this network need and that may be on the engine's own machine, as
    ADDRESS:PORT: the name servers, and for setups the package index or this server's proxy for it. Names and IPv6
    addresses are left out."""
    services = [(address, 53) for address in settings.dns]
    index_url = f"http://{settings.pip_proxy}" if settings.pip_proxy else settings.pip_index_url
    if network == settings.setup_network and index_url is not None:
        index = urlsplit(index_url)
        services.append((index.hostname or "", index.port or (80 if index.scheme == "http" else 443)))
    return [f"{address}:{port}" for address, port in services if _IPV4.fullmatch(address)]


@asynccontextmanager
async def open_index(settings: Settings) -> AsyncIterator[IndexSource]:
    """Yield the source of the index's URL: the index itself, or this server's proxy for it.

    Raises `SettingsError` if PYEXEC_PIP_PROXY cannot be used."""
    if settings.pip_proxy is None or settings.pip_index_url is None:
        yield partial(nullcontext, settings.pip_index_url)
        return
    async with serve_index(settings.pip_proxy, settings.pip_index_url, settings.ca_bundle) as proxy:
        yield proxy.grant


def _without_password(index_url: str) -> str:
    """Return the URL of an index without user and password, which may change."""
    index = urlsplit(index_url)
    return index._replace(netloc=index.netloc.rpartition("@")[2]).geturl()


def _setup_config(settings: Settings, labels: Mapping[str, str], index: IndexSource) -> SetupConfig:
    """Raise `SettingsError` if a file that setups use cannot be read."""
    if settings.ca_bundle is not None:
        count_certificates(settings.ca_bundle)
    return SetupConfig(
        labels=labels,
        network=settings.setup_network,
        timeout_seconds=settings.setup_timeout,
        memory_bytes=settings.setup_memory_mb * MEBIBYTE,
        disk_bytes=settings.setup_disk_mb * MEBIBYTE,
        pids_max=setup_pids_max(settings),
        uv=find_installer(settings.uv) if settings.setup_network != "none" else None,
        index=index,
        ca_bundle=settings.ca_bundle,
    )


def setup_pids_max(settings: Settings) -> int:
    """Return how many processes and threads a setup may have."""
    return max(settings.pids_max, SETUP_PIDS_MIN)


def log_bytes(settings: Settings) -> int:
    """Return the size of the engine's log of a sandbox: half of it holds what any program sends, as base64."""
    program = settings.max_output_bytes + settings.max_display_bytes + settings.max_files_mb * MEBIBYTE
    return 3 * program + MEBIBYTE
