"""Evict pulled images and environments that exceed the cache. See docs/design/environments.md."""

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

import anyio
from attrs import define, field

from pyexec.domain.environment import REPOSITORY, is_replaced, stored_bytes
from pyexec.errors import ExecutorError
from pyexec.ports import Image, Images

logger = logging.getLogger(__name__)

PULLED_REPOSITORY = "pyexec-pulled"
"""The server tags each image that it pulls with a name here. It never removes other images, such as the operator's."""
USE_PRECISION_SECONDS = 60.0
"""An image is tagged again at most this often, so its time of last use is known this precisely."""
IN_USE_SECONDS = 2 * USE_PRECISION_SECONDS
"""An image that was used this recently is not evicted, because a run may need it."""
REPEAT_SECONDS = IN_USE_SECONDS + 1
"""While the cache is too large, eviction runs this often: images in use become idle."""


@define(eq=False)
class Eviction:
    """Removes images until the others fit into `bytes_max`. Calls `on_removal` after each removal."""

    images: Images
    bytes_max: int
    on_removal: Callable[[], None]
    _is_running: bool = field(default=False, init=False)
    _requested: anyio.Event = field(factory=anyio.Event, init=False)
    _newest_use: datetime | None = field(default=None, init=False)
    """The most recent use of an image, by the clock of the engine."""
    _newest_use_seen: float = field(default=0.0, init=False)
    """When eviction first saw this use, by the monotonic clock of this machine."""

    async def run(self) -> None:
        """Evict images. Repeat this until the rest fits: no further build or pull may follow that would start it again.

        If eviction is already running, let it repeat at once, and return."""
        self._requested.set()
        if self._is_running:
            return
        self._is_running = True
        try:
            is_too_large = True
            while is_too_large or self._requested.is_set():
                with anyio.move_on_after(REPEAT_SECONDS):
                    await self._requested.wait()
                self._requested = anyio.Event()
                is_too_large = await self._evict()
        finally:
            self._is_running = False

    async def _evict(self) -> bool:
        """Evict idle images once. Return True if more must be evicted later, or if the engine fails."""
        try:
            cached = await self._list()
            unused_for = self._time_since_newest_use(cached)
            busy: set[str] = set()
            while evictable := images_to_evict(cached, self.bytes_max, datetime.now(UTC), unused_for, busy):
                image = evictable[0]
                if await self.images.remove(image):
                    cached.remove(image)
                    self.on_removal()
                    logger.info(
                        "removed the image %s, unused since %s", image.names or image.id, image.used_at
                    )
                else:
                    busy.add(image.id)
        except ExecutorError as error:
            logger.warning("evicting images failed; retrying in %g s: %s", REPEAT_SECONDS, error)
            return True
        # The last used image stays, however large it is.
        return len(cached) > 1 and sum(map(_own_size, cached)) > self.bytes_max

    async def _list(self) -> list[Image]:
        """Return the images in the cache."""
        environments = await self.images.list(REPOSITORY)
        pulled = await self.images.list(PULLED_REPOSITORY)
        found = {image.id: image for image in (*environments, *pulled)}
        return [image for image in found.values() if not has_foreign_name(image.names)]

    def _time_since_newest_use(self, images: Sequence[Image]) -> timedelta:
        """Return for how long no image was used, at least, by the monotonic clock of this machine."""
        newest_use = max((image.used_at for image in images), default=None)
        if newest_use != self._newest_use:
            self._newest_use, self._newest_use_seen = newest_use, anyio.current_time()
        return timedelta(seconds=anyio.current_time() - self._newest_use_seen)


def images_to_evict(
    images: Sequence[Image],
    bytes_max: int,
    now: datetime,
    unused_for: timedelta = timedelta(0),
    busy: Collection[str] = (),
) -> Sequence[Image]:
    """Return the images to remove so that the others fit into `bytes_max`.

    First come the builds that newer ones have replaced, then the least recently used images. Images that may be in use
    are kept, and those whose ids are in `busy`, because a program runs in them. The last used image is kept, too.

    `now` is the time of this machine, and the times of use are those of the engine. Since the newest use, at least
    `unused_for` has passed. If the clocks differ, the earlier of both times counts, so that no image in use looks
    idle."""
    newest = max((image.used_at for image in images), default=now)
    idle_since = min(now, newest + unused_for) - timedelta(seconds=IN_USE_SECONDS)
    idle = [image for image in images if image.used_at <= idle_since and image.used_at < newest]
    idle.sort(key=lambda image: (not is_replaced(image.names), image.used_at))
    total = sum(map(_own_size, images))
    evicted = []
    for image in idle:
        if image.id in busy:
            continue
        if total <= bytes_max and not is_replaced(image.names):
            break
        total -= _own_size(image)
        evicted.append(image)
    return evicted


def pulled_tag(name: str) -> str:
    """Return the tag that marks an image as pulled by the server under this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def pulled_tags(names: Sequence[str]) -> Sequence[str]:
    """Return the tags that mark an image as pulled by the server: one for each name under which it was pulled."""
    prefix = f"{PULLED_REPOSITORY}:"
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def has_foreign_name(names: Sequence[str]) -> bool:
    """Return True if the operator, or another program, has given the image a name. The server does not remove such an
    image. Its own names are those in its repositories, and those under which it pulled the image."""
    marks = pulled_tags(names)
    return not all(
        name.partition(":")[0] in (REPOSITORY, PULLED_REPOSITORY)
        or any(pulled_tag(spelling) in marks for spelling in _spellings(name))
        for name in names
    )


def _spellings(name: str) -> Sequence[str]:
    """Return the names of a pull that the engine shortens to `name`."""
    short = name.removesuffix(":latest")
    hub = ("", "docker.io/", "index.docker.io/", "docker.io/library/", "index.docker.io/library/", "library/")
    return [f"{prefix}{each}" for prefix in hub for each in {name, short}]


def _own_size(image: Image) -> int:
    """Return the size of an environment without its base image. Only the server gives images such names."""
    size = stored_bytes(image.names)
    return image.size_bytes if size is None else size
