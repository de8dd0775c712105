"""The images that programs run in: pulled, or made of a recipe, once each, and kept while there is space for them.

Everything that is known of them lies with the engine: their names hold their keys, their labels their sizes, and the
time at which they were last given their name is when they were last used. So a restart forgets nothing."""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
from attrs import field, frozen

from pyexec.domain.environment import REPOSITORY, Recipe, environment_key
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
from pyexec.sandbox.environments.setup import BASE_SIZE_LABEL, ENVIRONMENT_LABEL, Say, Setup
from pyexec.sandbox.environments.shared_work import SharedWork

logger = logging.getLogger(__name__)

PULLED_REPOSITORY = "pyexec-pulled"
"""A second name for each image that was pulled for a run, so that those of the machine's owner are never removed."""
PULL_SECONDS = 900.0
"""An execution that waits for an image must end, too."""
USE_SECONDS = 60.0
"""How exactly the last use is known."""
UNTOUCHABLE_SECONDS = 2 * USE_SECONDS
"""What was used so recently is perhaps about to be."""


@frozen(kw_only=True)
class EnvironmentsConfig:
    """Bounds: bytes of all pulled images and environments together, and seconds after which an environment that does
    not name exact versions is made anew. `architecture` is the engine's."""

    cache_bytes_max: int
    age_seconds_max: float
    architecture: str


@frozen
class Environments:
    """Finds and makes the image for a spec. Raises `ImageUnavailable`, `SetupFailed`, `EngineError`, `Unavailable`."""

    images: Images
    setup: Setup
    config: EnvironmentsConfig
    proven: Callable[[Image], Awaitable[None]]
    """Returns once sandboxes are known to hold, and is asked before anything runs in an image."""
    work: SharedWork = field(factory=SharedWork)
    meter: Meter = NOOP_METER

    async def find(self, spec: Spec) -> Image | None:
        """The image in which `spec` can run at once; None when it must be pulled or made first."""
        base = await self.images.find(spec.docker_image)
        if base is None:
            return None
        self._check_architecture(base, spec.docker_image)
        await self._use(base, spec.docker_image)  # by what was made of it, too: without it that is not found
        recipe = spec.recipe
        if recipe is None:
            return base
        return await self._made(environment_key(base.id, recipe), recipe)

    async def prepare(self, spec: Spec, say: Say) -> Image:
        """The image in which `spec` can run, however long that takes; what happens meanwhile is said."""
        base = await self.pulled(spec.docker_image, say)
        recipe = spec.recipe
        if recipe is None:
            return base
        key = environment_key(base.id, recipe)
        made = await self._made(key, recipe)
        while made is None:
            await self.work.join(key, partial(self._make, base, recipe, key), say)
            made = await self.images.find(f"{REPOSITORY}:{key}")
        return made

    async def pulled(self, name: str, say: Say = lambda _: None) -> Image:
        """The image of this name or id, pulled unless it is there."""
        while (image := await self.images.find(name)) is None:
            await self.work.join(name, partial(self._pull, name), say)
        self._check_architecture(image, name)
        await self.proven(image)
        return image

    async def _made(self, key: str, recipe: Recipe) -> Image | None:
        """The environment, unless it is missing, or too old for what it promises."""
        image = await self.images.find(f"{REPOSITORY}:{key}")
        if image is None:
            return None
        age = datetime.now(UTC) - image.created_at
        if not recipe.pinned and age > timedelta(seconds=self.config.age_seconds_max):
            return None
        await self._mark(image, REPOSITORY, key)
        self.meter.count(ENVIRONMENT_HITS)
        return image

    async def _make(self, base: Image, recipe: Recipe, key: str, say: Say) -> None:
        try:
            with timed(self.meter, ENVIRONMENT_BUILD_SECONDS):
                await self.setup.build(base, recipe, key, say, self.work.later)
        except ExecutorError:
            self.meter.count(ENVIRONMENT_BUILDS, "failed")
            raise
        self.meter.count(ENVIRONMENT_BUILDS, "made")
        self.work.later(self._make_room, name="make room for environments")

    async def _pull(self, name: str, say: Say) -> None:
        try:
            with timed(self.meter, IMAGE_PULL_SECONDS):
                await self._fetch(name, say)
        except ExecutorError:
            self.meter.count(IMAGE_PULLS, "failed")
            raise
        self.meter.count(IMAGE_PULLS, "pulled")
        self.work.later(self._make_room, name="make room for images")

    async def _fetch(self, name: str, say: Say) -> None:
        say(f"pulling {name}\n".encode())
        with anyio.move_on_after(PULL_SECONDS) as pulling:
            async for line in self.images.pull(name):
                say(line.encode() + b"\n")
        if pulling.cancelled_caught:
            raise ImageUnavailable(f"the image {name!r} did not come within {PULL_SECONDS:g} s")
        image = await self.images.find(name)
        if image is None:
            raise ImageUnavailable(f"the image {name!r} was pulled, and is not there")
        await self.images.tag(image.id, PULLED_REPOSITORY, _tag(name))

    async def _use(self, image: Image, name: str) -> None:
        if any(known.startswith(f"{PULLED_REPOSITORY}:") for known in image.names):
            await self._mark(image, PULLED_REPOSITORY, _tag(name))

    async def _mark(self, image: Image, repository: str, tag: str) -> None:
        """Remembers that it is used now."""
        if datetime.now(UTC) - image.used_at > timedelta(seconds=USE_SECONDS):
            await self.images.tag(image.id, repository, tag)

    def _check_architecture(self, image: Image, name: str) -> None:
        if image.architecture not in ("", self.config.architecture):
            raise ImageUnavailable(
                f"the image {name!r} is made for {image.architecture}; this machine is {self.config.architecture}"
            )

    async def _make_room(self) -> None:
        """Removes what was not used for longest, until all fit. What is in use now stays."""
        try:
            made = await self.images.list(label=ENVIRONMENT_LABEL)
            pulled = await self.images.list(repository=PULLED_REPOSITORY)
            kept = {image.id: image for image in (*made, *pulled)}
            for image in superfluous(tuple(kept.values()), self.config.cache_bytes_max, datetime.now(UTC)):
                if await self.images.remove(image):
                    logger.info(
                        "removed the image %s, unused since %s", image.names or image.id, image.used_at
                    )
        except ExecutorError as error:
            logger.warning("there may be too many environments until the next one is made: %s", error)


def superfluous(images: Sequence[Image], bytes_max: int, now: datetime) -> Sequence[Image]:
    """What has to go so that the others fit: those that a newer one has taken the name of, then what was not used for
    longest; never what may be in use."""
    nameless = [image for image in images if not image.names]
    total = sum(_own_size(image) for image in images if image.names)
    idle_since = now - timedelta(seconds=UNTOUCHABLE_SECONDS)
    going = []
    for image in sorted((image for image in images if image.names), key=lambda image: image.used_at):
        if total <= bytes_max or image.used_at > idle_since:
            break
        total -= _own_size(image)
        going.append(image)
    return [*nameless, *going]


def _own_size(image: Image) -> int:
    """What it takes beside the image that it was made of."""
    base = image.labels.get(BASE_SIZE_LABEL, "0")
    return max(0, image.size_bytes - int(base)) if base.isdecimal() else image.size_bytes


def _tag(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
