"""Whether the container engine does for these settings what a server needs of it, tried on real sandboxes."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

import anyio
from attrs import frozen

from pyexec.adapters.docker.engine import DockerEngine, DockerInfo
from pyexec.errors import EngineError, ExecutorError, ImageUnavailable, SettingsError, Unavailable
from pyexec.ports import EngineIdentity, Image
from pyexec.preflight.findings import Finding, failed, fine, warning
from pyexec.sandbox.isolation.isolation_check import IsolationCheck
from pyexec.sandbox.isolation.probe_runner import PROBE_LABEL
from pyexec.sandbox.sandbox import Sandbox
from pyexec.settings import Settings
from pyexec.wiring.sandboxes import container_spec, isolation, isolation_check_config, networks, standard_kind

SKEW_SECONDS_MAX = 5.0
ENGINE_SECONDS = 15.0
REACH = "set PYEXEC_DOCKER_SOCKET or PYEXEC_DOCKER_HOST, and see that this user may use it"
_LEFT_OUT = "the other checks of the engine were left out"


async def check_engine(settings: Settings) -> Sequence[Finding]:
    """It answers, has the runtime and the image, and sandboxes hold. What is made is removed again."""
    async with AsyncExitStack() as stack:
        try:
            engine = await DockerEngine.connect(
                settings.engine_host(), isolation(settings), settings.docker_timeout
            )
            stack.push_async_callback(engine.close)
            with anyio.fail_after(ENGINE_SECONDS):
                identity, info = await engine.identify(), await engine.info()
        except SettingsError as error:
            return [failed("docker", error, _LEFT_OUT)]
        except (ExecutorError, TimeoutError) as error:
            told = str(error) or f"no answer within {ENGINE_SECONDS:g} s"
            return [failed("docker", f"{settings.engine_host()}: {told}", f"{REACH}; {_LEFT_OUT}")]
        trial = _Trial(settings, engine, identity)
        return [*_info(settings, info), *await trial.networks(stack), *await trial.sandboxes()]


def _info(settings: Settings, info: DockerInfo) -> Iterator[Finding]:
    runtime = settings.docker_runtime or info.runtime
    yield fine(
        "docker",
        f"{info.version}, API {info.api}, runtime {runtime}, control groups {info.cgroup}, "
        f"at {settings.engine_host()}",
    )
    if info.system_time is not None:
        skew = (datetime.now(UTC) - info.system_time).total_seconds()
        if abs(skew) > SKEW_SECONDS_MAX:
            yield warning(
                "clock", f"the engine's machine is {-skew:+.0f} s from this one; let both follow one clock"
            )
        else:
            yield fine("clock", "that of the engine's machine agrees with this one")


@frozen
class _Trial:
    """Sandboxes as a server would start them."""

    settings: Settings
    engine: DockerEngine
    identity: EngineIdentity

    async def networks(self, stack: AsyncExitStack) -> Sequence[Finding]:
        """What is missing is made, and until `stack` ends."""
        names = sorted(networks(self.settings))
        findings = [found for name in names if (found := await self._network(name, stack))]
        return findings or [fine("networks", ", ".join(names) or "none is used")]

    async def sandboxes(self) -> Sequence[Finding]:
        """Whether one starts, and whether it holds."""
        name = self.settings.default_image
        try:
            image = await self.engine.images.find(name)
            if image is None:
                return [await self._absent_image()]
            seconds = await self._start()
        except ExecutorError as error:
            return [failed("image", f"no sandbox starts in {name}: {error}", "set PYEXEC_DEFAULT_IMAGE")]
        started = fine("image", f"a sandbox of {name} starts in {seconds:.2f} s")
        return [started, *await self._limits(image)]

    async def _network(self, name: str, stack: AsyncExitStack) -> Finding | None:
        """Makes it for as long as the check-up takes, unless it is there; None when all is well."""
        try:
            if await self.engine.networks.ensure(name):
                stack.push_async_callback(partial(self.engine.networks.remove, name))
        except ExecutorError as error:
            mend = f"see to it that there is just one: docker network ls, docker network create {name}"
            return failed("networks", f"{name} cannot be used: {error}", mend)
        return None

    async def _absent_image(self) -> Finding:
        name = self.settings.default_image
        try:
            await self.engine.images.check_pullable(name)
        except (ImageUnavailable, EngineError, Unavailable) as error:
            mend = f"docker pull {name}, or set PYEXEC_DEFAULT_IMAGE to one that is there"
            return failed("image", f"{name} is not there, and cannot be pulled: {error}", mend)
        return warning(
            "image",
            f"{name} is not there, and will be pulled by the first run; until it is there no sandbox can be tried, "
            f"so do docker pull {name} and check again",
        )

    async def _limits(self, image: Image) -> Sequence[Finding]:
        address = f"http://{self.settings.host}:{self.settings.port}"
        proof = IsolationCheck(self.engine, isolation_check_config(self.settings, self.identity, address))
        try:
            await proof.ensure_passed(image)
        except ExecutorError as error:
            return [failed("limits", error)]
        told = [warning("limits", sentence) for sentence in proof.warnings]
        return told or [fine("limits", "a probe could break none of them")]

    async def _start(self) -> float:
        """How long a sandbox takes to be ready, in seconds; it is removed at once."""
        policy = self.settings.policy(self.identity.cpus)
        spec = container_spec(self.settings, {PROBE_LABEL: "check"}, standard_kind(policy))
        begun = perf_counter()
        sandbox = await Sandbox.start(self.engine, spec)
        seconds = perf_counter() - begun
        await sandbox.remove()
        return seconds
