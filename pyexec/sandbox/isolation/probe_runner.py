"""Run the isolation check's probes, each in a sandbox of its own, and read their reports."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import anyio
from attrs import frozen

from pyexec.codec import read_report
from pyexec.domain.isolation import (
    DEFAULT_CPU_SHARES,
    LimitsReport,
    MountReport,
    NetworkReport,
    ProbeLimits,
)
from pyexec.domain.sandbox_limits import MASKED_PATHS, RESOURCE_LIMITS
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError
from pyexec.ports import ContainerSpec, Engine
from pyexec.sandbox import guest_source

T = TypeVar("T")

PROBE_SECONDS = 30.0
"""Longer than the probes' own timeout."""
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
        """Return the path of a file of the engine, from the root of its file system; empty if it is unknown."""
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
