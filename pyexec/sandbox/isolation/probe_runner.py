"""Probes in sandboxes of their own: started like those of programs, and asked what they met."""

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, TypeVar

import anyio
from attrs import frozen

from pyexec.codec import read_report
from pyexec.domain.isolation import DEFAULT_CPU_SHARES, Asked, Findings
from pyexec.domain.network_exposure import Reached
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError
from pyexec.ports import ContainerSpec, Engine

T = TypeVar("T")

PROBE_SECONDS = 30.0
"""The probes end themselves sooner."""
REPORT_BYTES_MAX = 64 * 1024
LABEL = "pyexec.probe"
"""On containers of probes, which belong to no deployment: they end and are removed by themselves."""


def small_limits(cpus: float | None) -> Asked:
    """What the probe has to fill: little, so that it is quick, and enough for runtimes that take some themselves."""
    return Asked(
        memory_bytes=128 * MEBIBYTE,
        work_bytes=2 * MEBIBYTE,
        tmp_bytes=MEBIBYTE,
        pids_max=64,
        cpu_shares=DEFAULT_CPU_SHARES // 2,
        cpus=cpus,
        uid=1000,
    )


@frozen
class Probes:
    """Sends probes into sandboxes of an engine.

    Every method raises `ImageUnavailable` for an image without Python, `EngineError` when no report comes,
    `Unavailable` when the engine is away."""

    engine: Engine

    async def limits(self, image: str, asked: Asked) -> Findings:
        """What a program meets that tries to break these limits."""
        arguments = {
            "memory_bytes": asked.memory_bytes,
            "work_bytes": asked.work_bytes,
            "tmp_bytes": asked.tmp_bytes,
            "pids_max": asked.pids_max,
        }
        return await self._report(Findings, _spec(image, "limits_probe", arguments, asked, None))

    async def reach(self, image: str, network: str, ports: Sequence[int]) -> Reached:
        """What a program on that network reaches of its host, at these ports, and of the cloud's metadata."""
        spec = _spec(image, "network_probe", list(ports), small_limits(None), network)
        return await self._report(Reached, spec)

    async def _report(self, kind: type[T], spec: ContainerSpec) -> T:
        container = await self.engine.start(spec)
        report = b""
        try:
            with anyio.fail_after(PROBE_SECONDS):
                while (data := await container.read()) is not None and len(report) < REPORT_BYTES_MAX:
                    report += data
            return read_report(report, kind)
        except (ValueError, TimeoutError) as error:
            told = container.diagnostics or f"{type(error).__name__} {error}"
            raise EngineError(f"a probe in the image {spec.image!r} reports nothing: {told}") from error
        finally:
            with anyio.CancelScope(shield=True):
                await container.remove()


def _spec(image: str, program: str, arguments: Any, asked: Asked, network: str | None) -> ContainerSpec:
    source = resources.files("pyexec.guest").joinpath(f"{program}.py").read_text("utf-8")
    return ContainerSpec(
        image=image,
        command=("python3", "-I", "-S", "-c", source, json.dumps(arguments)),
        labels={LABEL: program},
        memory_bytes=asked.memory_bytes,
        work_bytes=asked.work_bytes,
        tmp_bytes=asked.tmp_bytes,
        shm_bytes=MEBIBYTE,
        log_bytes=MEBIBYTE,
        pids_max=asked.pids_max,
        cpu_shares=asked.cpu_shares,
        cpus=asked.cpus,
        network=network,
    )
