"""Check the Docker engine: it answers, has the runtime and the image, and sandboxes start and enforce their limits."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

import anyio
from attrs import frozen

from pyexec.adapters.docker.engine import DockerEngine, DockerInfo
from pyexec.addresses import join_host_port
from pyexec.errors import EngineError, ExecutorError, ImageUnavailable, SettingsError, Unavailable
from pyexec.limits import policy_of
from pyexec.ports import EngineIdentity, Image
from pyexec.preflight.check_result import CheckResult, failed, ok, warning
from pyexec.sandbox.isolation_check import PROBE_LABEL, IsolationCheck, ProbeRunner
from pyexec.sandbox.sandbox import Sandbox
from pyexec.settings import Settings
from pyexec.wiring.memory import describe_memory
from pyexec.wiring.sandboxes import (
    container_spec,
    default_kind,
    isolation_check_config,
    networks,
    security_options,
)

SKEW_SECONDS_MAX = 5.0
ENGINE_SECONDS = 15.0
FIX = "set PYEXEC_DOCKER_SOCKET or PYEXEC_DOCKER_HOST, and make sure that this user may access Docker"
_SKIPPED = "all other checks of Docker were skipped"


async def check_engine(settings: Settings) -> Sequence[CheckResult]:
    """Connect to the engine and start sandboxes as a server would. Everything that is created is removed again."""
    host = settings.engine_host()
    async with AsyncExitStack() as stack:
        try:
            engine = await DockerEngine.connect(
                host, security_options(settings), settings.sandbox_uids, settings.docker_timeout
            )
            stack.push_async_callback(engine.close)
            with anyio.fail_after(ENGINE_SECONDS):
                identity, info = await engine.identify(), await engine.info()
        except SettingsError as error:
            return [failed("docker", error, _SKIPPED)]
        except (ExecutorError, TimeoutError) as error:
            reason = str(error) or f"timed out after {ENGINE_SECONDS:g} s"
            return [failed("docker", f"{host}: {reason}", f"{FIX}; {_SKIPPED}")]
        checks = _EngineChecks(settings, engine, identity, info.data_root)
        return [
            *check_info(settings, info),
            check_memory(settings, identity.memory_mb),
            *await checks.check_networks(stack),
            *await checks.check_sandboxes(),
        ]


def check_info(settings: Settings, info: DockerInfo) -> Iterator[CheckResult]:
    """Check what the engine says about itself."""
    runtime = settings.docker_runtime or info.runtime
    yield ok(
        "docker",
        f"Docker {info.version} at {settings.engine_host()}, API {info.api}, runtime {runtime}, "
        f"control groups {info.cgroup}",
    )
    if not info.filters_bridges:
        yield warning(
            "networks",
            "programs with network can reach each other: iptables does not see traffic within a bridge; run "
            "`modprobe br_netfilter` and `sysctl net.bridge.bridge-nf-call-iptables=1` on Docker's machine",
        )
    if info.system_time is not None:
        skew = (datetime.now(UTC) - info.system_time).total_seconds()
        if abs(skew) > SKEW_SECONDS_MAX:
            fix = "synchronize both clocks, for example with NTP"
            yield warning("clock", f"Docker's clock differs from this machine's by {-skew:+.0f} s; {fix}")
        else:
            yield ok("clock", "Docker's clock agrees with this machine's")


def check_memory(settings: Settings, engine_mb: int) -> CheckResult:
    """Warn if no run with the default limits fits in the memory of all sandboxes together."""
    text, fits = describe_memory(settings, engine_mb)
    return ok("memory", text) if fits else warning("memory", text)


@frozen
class _EngineChecks:
    """Checks that create networks and containers, as a server would."""

    settings: Settings
    engine: DockerEngine
    identity: EngineIdentity
    data_root: str

    async def check_networks(self, stack: AsyncExitStack) -> Sequence[CheckResult]:
        """Create the networks that are missing. They are removed when `stack` is closed."""
        names = sorted(networks(self.settings))
        failures = [failure for name in names if (failure := await self._check_network(name, stack))]
        return failures or [ok("networks", ", ".join(names) or "no network is used")]

    async def check_sandboxes(self) -> Sequence[CheckResult]:
        """Start a sandbox in the default image, and try to break out of its limits."""
        name = self.settings.default_image
        try:
            image = await self.engine.images.find(name)
            if image is None:
                return [await self._check_missing_image()]
            seconds = await self._start_sandbox()
            disk = await self._check_data_root(image)
        except ExecutorError as error:
            fix = "set PYEXEC_DEFAULT_IMAGE" if isinstance(error, ImageUnavailable) else ""
            return [failed("image", f"cannot start a sandbox in {name}: {error}", fix)]
        return [
            ok("image", f"a sandbox of {name} starts in {seconds:.2f} s"),
            ok("reuse", f"sandboxes are {'' if self.settings.sandbox_reuse else 'not '}reused"),
            disk,
            *await self._check_limits(image),
        ]

    async def _check_network(self, name: str, stack: AsyncExitStack) -> CheckResult | None:
        try:
            if await self.engine.networks.ensure(name):
                stack.push_async_callback(partial(self.engine.networks.remove, name))
        except ExecutorError as error:
            fix = f"make sure that exactly one network has this name: docker network ls, docker network create {name}"
            return failed("networks", f"cannot use the network {name}: {error}", fix)
        return None

    async def _check_missing_image(self) -> CheckResult:
        name = self.settings.default_image
        try:
            await self.engine.images.check_pullable(name)
        except (ImageUnavailable, EngineError, Unavailable) as error:
            fix = f"docker pull {name}, or set PYEXEC_DEFAULT_IMAGE to an image that exists"
            return failed("image", f"{name} is missing and cannot be pulled: {error}", fix)
        return warning(
            "image",
            f"{name} is missing; the first run will pull it. Sandboxes were not checked: run docker pull {name} and "
            "check again",
        )

    async def _check_limits(self, image: Image) -> Sequence[CheckResult]:
        address = f"http://{join_host_port(self.settings.host, self.settings.port)}"
        check = IsolationCheck(self.engine, isolation_check_config(self.settings, self.identity, address))
        try:
            await check.ensure_passed(image)
        except ExecutorError as error:
            return [failed("limits", error)]
        warnings = [warning("limits", sentence) for sentence in check.warnings]
        return warnings or [ok("limits", "all limits of a sandbox are enforced")]

    async def _check_data_root(self, image: Image) -> CheckResult:
        """Warn if Docker stores images on the same file system as the machine's root."""
        path = await ProbeRunner(self.engine, self.settings.sandbox_uids).find_data_path(image.id)
        if self.data_root and self.data_root in path:
            return warning(
                "disk",
                f"{self.data_root}, where Docker stores images and setups, has no file system of its own, so nothing "
                "but free space bounds pulls and what a setup writes until it is stopped; see docs/security.md",
            )
        return ok("disk", f"{self.data_root}, where Docker stores images, has a file system of its own")

    async def _start_sandbox(self) -> float:
        """Start a sandbox and remove it; return how long it took to become ready, in seconds."""
        policy = policy_of(self.settings, self.identity.cpus)
        spec = container_spec(self.settings, {PROBE_LABEL: "check"}, default_kind(policy))
        begun = perf_counter()
        sandbox = await Sandbox.start(self.engine, spec)
        seconds = perf_counter() - begun
        await sandbox.remove()
        return seconds
