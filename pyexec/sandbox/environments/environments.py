"""Find, pull and build images, each once at a time, and evict those that exceed the cache.

The engine stores all state: an image's names hold its key and its size, and the time of its last tagging is the time of
its last use. So the cache survives a restart. See docs/design/environments.md."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
from attrs import Factory, field, frozen

from pyexec.domain.environment import REPOSITORY, Recipe, environment_key
from pyexec.domain.python_version import check_python
from pyexec.domain.spec import Spec
from pyexec.errors import ExecutorError, ImageUnavailable
from pyexec.metrics import (
    ENVIRONMENT_BUILD_SECONDS,
    ENVIRONMENT_BUILDS,
    ENVIRONMENT_HITS,
    IMAGE_PULL_SECONDS,
    IMAGE_PULLS,
    NOOP_METER,
    Meter,
    timed,
)
from pyexec.ports import Image, Images
from pyexec.sandbox.environments.eviction import (
    PULLED_REPOSITORY,
    USE_PRECISION_SECONDS,
    Eviction,
    pulled_tag,
    pulled_tags,
)
from pyexec.sandbox.environments.setup import Setup
from pyexec.sandbox.environments.shared_work import OnOutput, SharedWork

PULL_SECONDS = 900.0
FOUND_SECONDS = 1.0
"""How long a found image is not looked up again. Otherwise, under load, each request would ask the engine for the same
image. Eviction cannot remove it in this time."""


@frozen(kw_only=True)
class EnvironmentsConfig:
    """Limits of the cache. `cache_bytes_max` is for all pulled images and environments together.

    An environment without exact versions is rebuilt after `age_seconds_max`. `architecture` is the engine's. `index` is
    the URL of the operator's package index, without a password."""

    cache_bytes_max: int
    age_seconds_max: float
    architecture: str
    index: str = ""


@frozen
class Environments:
    """Finds and builds images for specs.

    Methods raise `ImageUnavailable`, `SetupFailed`, `EngineError` or `Unavailable`."""

    images: Images
    setup: Setup
    config: EnvironmentsConfig
    check_isolation: Callable[[Image], Awaitable[None]]
    """Returns when the isolation check has passed. Called before anything runs in an image."""
    work: SharedWork = field(factory=SharedWork)
    meter: Meter = NOOP_METER
    _found: dict[str, tuple[Image, float]] = field(factory=dict, init=False)
    """The images that were found a moment ago, by name, and the time until which they are not looked up again."""
    _eviction: Eviction = field(
        default=Factory(
            lambda self: Eviction(self.images, self.config.cache_bytes_max, self._found.clear),
            takes_self=True,
        ),
        init=False,
    )

    async def find(self, spec: Spec) -> Image | None:
        """Return the image in which `spec` can run now; None if it must be pulled or built first."""
        base = await self._find_base(spec.docker_image)
        if base is None:
            return None
        self._check_architecture(base, spec.docker_image)
        # The use of an environment is also a use of its base image.
        await self._mark_pulled_image(base)
        recipe = spec.recipe
        if recipe is None:
            return base
        return await self._find_environment(environment_key(base.id, recipe, self.config.index), recipe)

    async def has(self, image: str) -> bool:
        """Return True if the engine has an image with this name or id."""
        return await self.images.find(image) is not None

    async def prepare(self, spec: Spec, on_output: OnOutput) -> Image:
        """Return the image in which `spec` can run. Pull and build it if necessary, which can take minutes."""
        base = await self.get_image(spec.docker_image, on_output)
        check_python(spec, base.python)
        recipe = spec.recipe
        if recipe is None:
            return base
        key = environment_key(base.id, recipe, self.config.index)
        environment = await self._find_environment(key, recipe)
        while environment is None:
            await self.work.join(key, partial(self._build, base, recipe, key), on_output)
            environment = await self.images.find(f"{REPOSITORY}:{key}")
        return environment

    async def get_image(self, name: str, on_output: OnOutput = lambda _: None) -> Image:
        """Return the image with this name or id. Pull it if it is missing."""
        while (image := await self.images.find(name)) is None:
            await self.work.join(name, partial(self._pull, name), on_output)
        self._check_architecture(image, name)
        await self.check_isolation(image)
        return image

    async def _find_base(self, name: str) -> Image | None:
        now = anyio.current_time()
        for expired in [known for known, (_, until) in self._found.items() if until <= now]:
            del self._found[expired]
        if name in self._found:
            return self._found[name][0]
        image = await self.images.find(name)
        if image is not None:
            self._found[name] = (image, now + FOUND_SECONDS)
        return image

    async def _find_environment(self, key: str, recipe: Recipe) -> Image | None:
        """Return the environment; None if it is missing or expired."""
        image = await self.images.find(f"{REPOSITORY}:{key}")
        if image is None or (not recipe.pinned and await self._is_expired(image, key)):
            return None
        await self._mark_used(image, REPOSITORY, key)
        self.meter.count(ENVIRONMENT_HITS)
        return image

    async def _is_expired(self, image: Image, key: str) -> bool:
        """Return True if the environment is too old, by the clock of this machine and by that of the engine.

        The clock of this machine may be ahead. Tagging makes the engine record its own time as `used_at`."""
        age_max = timedelta(seconds=self.config.age_seconds_max)
        if datetime.now(UTC) - image.created_at <= age_max:
            return False
        await self.images.tag(image.id, REPOSITORY, key)
        tagged = await self.images.find(image.id)
        return tagged is None or tagged.used_at - tagged.created_at > age_max

    async def _build(self, base: Image, recipe: Recipe, key: str, on_output: OnOutput) -> None:
        try:
            with timed(self.meter, ENVIRONMENT_BUILD_SECONDS):
                await self.setup.build(base, recipe, key, on_output, self.work.run_in_background)
        except ExecutorError:
            self.meter.count(ENVIRONMENT_BUILDS, "failed")
            raise
        self.meter.count(ENVIRONMENT_BUILDS, "made")
        self.work.run_in_background(self._eviction.run, name="evict images after a build")

    async def _pull(self, name: str, on_output: OnOutput) -> None:
        try:
            with timed(self.meter, IMAGE_PULL_SECONDS):
                await self._fetch(name, on_output)
        except ExecutorError:
            self.meter.count(IMAGE_PULLS, "failed")
            raise
        self.meter.count(IMAGE_PULLS, "pulled")
        self.work.run_in_background(self._eviction.run, name="evict images after a pull")

    async def _fetch(self, name: str, on_output: OnOutput) -> None:
        on_output(f"pulling {name}\n".encode())
        with anyio.move_on_after(PULL_SECONDS) as pulling:
            async for line in self.images.pull(name):
                on_output(line.encode() + b"\n")
        if pulling.cancelled_caught:
            raise ImageUnavailable(f"pulling the image {name!r} timed out after {PULL_SECONDS:g} s")
        image = await self.images.find(name)
        if image is None:
            raise ImageUnavailable(f"the image {name!r} is missing after a successful pull; try again")
        await self.images.tag(image.id, PULLED_REPOSITORY, pulled_tag(name))

    async def _mark_pulled_image(self, image: Image) -> None:
        if tags := pulled_tags(image.names):
            await self._mark_used(image, PULLED_REPOSITORY, tags[0])

    async def _mark_used(self, image: Image, repository: str, tag: str) -> None:
        """Tag the image again, so that the engine records the current time as its last use.

        The engine's clock may be ahead of this machine's."""
        if abs(datetime.now(UTC) - image.used_at) > timedelta(seconds=USE_PRECISION_SECONDS):
            await self.images.tag(image.id, repository, tag)

    def _check_architecture(self, image: Image, name: str) -> None:
        if image.architecture not in ("", self.config.architecture):
            raise ImageUnavailable(
                f"the image {name!r} is for {image.architecture}; this server needs {self.config.architecture}"
            )
