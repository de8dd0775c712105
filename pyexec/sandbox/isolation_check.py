"""Check that sandboxes are isolated before any program runs in one. See docs/design/isolation-check.md."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import anyio
from attrs import define, field, frozen

from pyexec.codec import read_report
from pyexec.domain.isolation import (
    DEFAULT_CPU_SHARES,
    LimitsReport,
    MountReport,
    NetworkReport,
    ProbeLimits,
    docker_resolvers,
    network_exposures,
    unenforced_limits,
)
from pyexec.domain.sandbox_limits import MASKED_PATHS, RESOURCE_LIMITS
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError, ImageUnavailable, SettingsError, raising_first_error
from pyexec.ports import ContainerSpec, Engine, Image
from pyexec.sandbox import guest_source

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROBE_SECONDS = 30.0
"""Longer than the probes' own timeout."""
PROBE_CPUS = 0.5
REPORT_BYTES_MAX = 64 * 1024
PROBE_LABEL = "pyexec.probe"
"""Label of the containers of probes. They have no label of a deployment: they end by themselves, and Docker then
removes them."""


def probe_limits(cpus: float | None, uids: range) -> ProbeLimits:
    """Return limits that a probe reaches quickly, and that leave enough memory for runtimes such as gVisor."""
    return ProbeLimits(
        memory_bytes=128 * MEBIBYTE,
        disk_bytes=MEBIBYTE,
        pids_max=64,
        cpu_shares=DEFAULT_CPU_SHARES // 2,
        cpus=cpus,
        uids=uids,
    )


@frozen
class ProbeRunner:
    """Runs probes in sandboxes of an engine.

    Every method raises `ImageUnavailable` if the image has no Python, `EngineError` if the probe returns no report,
    and `Unavailable` if the engine does not respond."""

    engine: Engine
    uids: range
    """The user ids of sandboxes."""

    async def check_limits(self, image: str, limits: ProbeLimits) -> LimitsReport:
        """Return the observations of a probe that tries to exceed these limits."""
        arguments = {
            "memory_bytes": limits.memory_bytes,
            "disk_bytes": limits.disk_bytes,
            "pids_max": limits.pids_max,
            "resources": list(RESOURCE_LIMITS),
            "masked_paths": MASKED_PATHS,
        }
        return await self._run(LimitsReport, _probe_spec(image, "limits_probe", arguments, limits, None))

    async def check_network(self, image: str, network: str, ports: Sequence[int]) -> NetworkReport:
        """Return which addresses a probe on this network reaches: `ports` of the host, and the metadata address."""
        spec = _probe_spec(image, "network_probe", list(ports), probe_limits(None, self.uids), network)
        return await self._run(NetworkReport, spec)

    async def find_data_path(self, image: str) -> str:
        """Return the path of the file that the engine mounts as /etc/passwd, from the root of the file system that
        contains the engine's data directory; empty if it is unknown."""
        spec = _probe_spec(image, "mount_probe", None, probe_limits(None, self.uids), None)
        return (await self._run(MountReport, spec)).path

    async def _run(self, kind: type[T], spec: ContainerSpec) -> T:
        container = await self.engine.start(spec)
        report = b""
        try:
            with anyio.fail_after(PROBE_SECONDS):
                while (data := await container.read()) is not None and len(report) < REPORT_BYTES_MAX:
                    report += data
            return read_report(report, kind)
        except (ValueError, TimeoutError) as error:
            reason = container.diagnostics or f"{type(error).__name__} {error}"
            raise EngineError(
                f"the probe in the image {spec.image!r} returned no report: {reason}"
            ) from error
        finally:
            with anyio.CancelScope(shield=True):
                await container.remove()


def _probe_spec(
    image: str, probe: str, arguments: Any, limits: ProbeLimits, network: str | None
) -> ContainerSpec:
    return ContainerSpec(
        image=image,
        command=("python3", "-I", "-S", "-c", guest_source.source(probe), json.dumps(arguments)),
        labels={PROBE_LABEL: probe},
        memory_bytes=limits.memory_bytes,
        disk_bytes=limits.disk_bytes,
        shm_bytes=MEBIBYTE,
        log_bytes=MEBIBYTE,
        pids_max=limits.pids_max,
        cpu_shares=limits.cpu_shares,
        cpus=limits.cpus,
        network=network,
    )


@frozen(kw_only=True)
class IsolationCheckConfig:
    """The operator's settings.

    `uids` are the user ids of sandboxes.
    `unsupported` are limits that the engine reports as unsupported; `accepted` are limits that need not be enforced.
    `networks` are those of programs and setups; `ports` are ports of the host that programs should not reach.
    With `strict`, the check fails if programs can reach the host. `docker_resolver` is true if
    programs should ask Docker's resolver."""

    default_image: str
    uids: range
    unsupported: Collection[str]
    accepted: Collection[str]
    networks: Collection[str]
    ports: Sequence[int]
    strict: bool
    docker_resolver: bool = False


@define
class IsolationCheck:
    """Runs once, in the first image that is available. All programs and setups wait for it (`ensure_passed`)."""

    engine: Engine
    config: IsolationCheckConfig
    warnings: Sequence[str] = ()
    """Warnings for the operator, as sentences."""
    _failure: str = ""
    _passed: bool = False
    _running: anyio.Lock = field(factory=anyio.Lock)
    _failed: anyio.Event = field(factory=anyio.Event)

    @property
    def passed(self) -> bool:
        """Return True if the check has passed."""
        return self._passed

    async def run_at_startup(self) -> None:
        """Run the check if the default image is present; it does not wait for a pull, which can take minutes.

        Raises `SettingsError` if the check fails, `EngineError` or `Unavailable` if it cannot run."""
        reason = f"the image {self.config.default_image!r} is missing"
        try:
            image = await self.engine.images.find(self.config.default_image)
            if image is not None:
                await self.ensure_passed(image)
                return
        except ImageUnavailable as error:
            reason = str(error)
        except EngineError as error:
            if self._failure:
                raise SettingsError(self._failure) from error
            raise
        self._warn([f"isolation check pending; it runs before the first program: {reason}"])

    async def ensure_passed(self, image: Image) -> None:
        """Return when the check has passed. If it has not run yet, run it in this image.

        Raises `EngineError` if the check fails (the server then stops), and the errors of `ProbeRunner`."""
        if self._passed:
            return
        async with self._running:
            if not self._passed and not self._failure:
                await self._run(image.id)
        if self._failure:
            raise EngineError(self._failure)

    async def wait_for_failure(self) -> None:
        """Wait until the check fails, then raise `SettingsError`."""
        await self._failed.wait()
        raise SettingsError(self._failure)

    async def _run(self, image: str) -> None:
        unenforced: Mapping[str, str] = {}
        networks: dict[str, NetworkReport] = {}
        runner = ProbeRunner(self.engine, self.config.uids)

        async def check_limits() -> None:
            nonlocal unenforced
            limits = probe_limits(None if "cpus" in self.config.unsupported else PROBE_CPUS, self.config.uids)
            report = await runner.check_limits(image, limits)
            unenforced = unenforced_limits(limits, report, self.config.unsupported)

        async def check_network(name: str) -> None:
            networks[name] = await runner.check_network(image, name, self.config.ports)

        with raising_first_error():
            async with anyio.create_task_group() as probes:
                probes.start_soon(check_limits, name="probe limits")
                for name in self.config.networks:
                    probes.start_soon(check_network, name, name=f"probe the network {name}")
        resolvers = () if self.config.docker_resolver else docker_resolvers(networks)
        self._judge(unenforced, network_exposures(networks), resolvers)

    def _judge(
        self, unenforced: Mapping[str, str], exposures: Sequence[str], resolvers: Sequence[str]
    ) -> None:
        rejected = {name: problem for name, problem in unenforced.items() if name not in self.config.accepted}
        if rejected:
            problems = "; ".join(f"{name} ({problem})" for name, problem in rejected.items())
            names = ",".join([*self.config.accepted, *rejected])
            self._fail(
                f"this Docker engine does not enforce {problems}; "
                f"to accept this, set PYEXEC_ALLOW_UNENFORCED={names}"
            )
        elif exposures and self.config.strict:
            self._fail(f"{'; '.join(exposures)}; see docs/security.md to block this, or unset PYEXEC_STRICT")
        else:
            self._passed = True
            self._warn(
                [
                    *(
                        f"{name} is not enforced (accepted by PYEXEC_ALLOW_UNENFORCED): {problem}"
                        for name, problem in unenforced.items()
                    ),
                    *(
                        f"{exposure}; see docs/security.md to block this"
                        for exposure in (*exposures, *resolvers)
                    ),
                ]
            )

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._failed.set()

    def _warn(self, warnings: Sequence[str]) -> None:
        self.warnings = warnings
        for warning in warnings:
            logger.warning("%s", warning)
