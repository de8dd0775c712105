"""The proof that sandboxes hold: no program runs before one was probed, and nothing is believed that can be tried."""

import logging
from collections.abc import Collection, Mapping, Sequence

import anyio
from attrs import define, field, frozen

from pyexec.domain.isolation import unenforced_limits
from pyexec.domain.network_exposure import Reached, network_exposures
from pyexec.errors import EngineError, ExecutorError, ImageUnavailable, SettingsError, first_error
from pyexec.ports import Engine, Image
from pyexec.sandbox.isolation.probe_runner import Probes, small_limits

logger = logging.getLogger(__name__)

PROBE_CPUS = 0.5


@frozen(kw_only=True)
class IsolationCheckConfig:
    """What the operator decided. `denied` are the limits that the engine says it has not, `accepted` those that need
    not bind; `ports` those of the host at which a service may listen; `networks` those of programs and setups."""

    default_image: str
    denied: Collection[str]
    accepted: Collection[str]
    networks: Collection[str]
    ports: Sequence[int]
    strict: bool


@define
class IsolationCheck:
    """Made once, in the first image that is there; `by` waits for it, so it stands before everything that runs."""

    engine: Engine
    config: IsolationCheckConfig
    warnings: Sequence[str] = ()
    """What an operator should know, a sentence each."""
    _refusal: str = ""
    _made: bool = False
    _making: anyio.Lock = field(factory=anyio.Lock)
    _refused: anyio.Event = field(factory=anyio.Event)

    @property
    def made(self) -> bool:
        """Whether it stands."""
        return self._made

    async def at_start(self) -> None:
        """Makes it if the default image is there, for it is not worth a pull that may take minutes.

        Raises `SettingsError` naming what does not hold, `EngineError` or `Unavailable`."""
        missing = f"the image {self.config.default_image!r} is not there yet"
        try:
            image = await self.engine.images.find(self.config.default_image)
            if image is not None:
                await self.by(image)
                return
        except ImageUnavailable as error:
            missing = str(error)
        except EngineError as error:
            if self._refusal:
                raise SettingsError(self._refusal) from error
            raise
        self._warn([f"limits not proven yet, before the first program they will be: {missing}"])

    async def by(self, image: Image) -> None:
        """Returns once it is made, in this image if need be.

        Raises `EngineError` when it has failed, which ends the server; else as `Probes` does."""
        if self._made:
            return
        async with self._making:
            if not self._made and not self._refusal:
                await self._make(image.id)
        if self._refusal:
            raise EngineError(self._refusal)

    async def refuse(self) -> None:
        """Waits for as long as all holds; raises `SettingsError` when it turns out not to."""
        await self._refused.wait()
        raise SettingsError(self._refusal)

    async def _make(self, image: str) -> None:
        failing: Mapping[str, str] = {}
        reached: dict[str, Reached] = {}
        probes = Probes(self.engine)

        async def probe_limits() -> None:
            nonlocal failing
            asked = small_limits(None if "cpus" in self.config.denied else PROBE_CPUS)
            failing = unenforced_limits(asked, await probes.limits(image, asked), self.config.denied)

        async def probe_network(name: str) -> None:
            reached[name] = await probes.reach(image, name, self.config.ports)

        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as probing:
                probing.start_soon(probe_limits, name="probe limits")
                for name in self.config.networks:
                    probing.start_soon(probe_network, name, name=f"probe the network {name}")
        except* ExecutorError as errors:
            failure = first_error(errors)
        if failure is not None:  # not raised above, where it would be wrapped in a group
            raise failure
        self._judge(failing, network_exposures(reached))

    def _judge(self, failing: Mapping[str, str], exposed: Sequence[str]) -> None:
        refused = {name: reason for name, reason in failing.items() if name not in self.config.accepted}
        if refused:
            named = "; ".join(f"{name} ({reason})" for name, reason in refused.items())
            self._refuse(
                f"sandboxes of this Docker engine do not hold {named}; "
                f"PYEXEC_ALLOW_UNENFORCED={','.join([*self.config.accepted, *refused])} accepts that"
            )
        elif exposed and self.config.strict:
            self._refuse(
                f"{'; '.join(exposed)}; docs/security.md says how to close that, or leave out PYEXEC_STRICT"
            )
        else:
            accepted = [
                f"{name} does not hold, which is accepted: {reason}" for name, reason in failing.items()
            ]
            closing = [f"{sentence}; docs/security.md says how to close that" for sentence in exposed]
            self._made = True
            self._warn([*accepted, *closing])

    def _refuse(self, reason: str) -> None:
        self._refusal = reason
        self._refused.set()

    def _warn(self, warnings: Sequence[str]) -> None:
        self.warnings = warnings
        for warning in warnings:
            logger.warning("%s", warning)
