"""Test how often an image is looked up in the engine, and when a use is recorded."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from attrs import define, evolve, field

from pyexec.domain.spec import Spec
from pyexec.ports import Image, Images
from pyexec.sandbox.environments import environments
from pyexec.sandbox.environments.environments import Environments, EnvironmentsConfig
from pyexec.sandbox.environments.eviction import PULLED_REPOSITORY
from tests.events import submitted
from tests.services.images import image


@define
class CountedImages:
    """An engine that has some images."""

    present: set[str]
    used_ago: timedelta = timedelta(0)
    lookups: list[str] = field(factory=list)
    tags: list[str] = field(factory=list)

    async def find(self, name: str) -> Image | None:
        self.lookups.append(name)
        used_at = datetime.now(UTC) - self.used_ago
        return evolve(image(name), used_at=used_at) if name in self.present else None

    async def tag(self, name: str, repository: str, tag: str) -> None:
        self.tags.append(name)


@define
class SlowClock:
    """An engine with an environment that was built 30 days ago, but `age` ago by the engine's own clock."""

    age: timedelta
    built_at: datetime = field(factory=lambda: datetime.now(UTC) - timedelta(days=30))
    is_tagged: bool = False

    async def find(self, name: str) -> Image | None:
        if name == "a":
            return image("a")
        used_at = self.built_at + self.age if self.is_tagged else self.built_at
        return evolve(image("environment"), created_at=self.built_at, used_at=used_at)

    async def tag(self, name: str, repository: str, tag: str) -> None:
        self.is_tagged = True


DAILY = EnvironmentsConfig(cache_bytes_max=1, age_seconds_max=86400, architecture="amd64")


def environments_on(images: CountedImages | SlowClock) -> Environments:
    unused = cast(Any, None)
    return Environments(
        images=cast(Images, images),
        setup=unused,
        config=EnvironmentsConfig(cache_bytes_max=1, age_seconds_max=1, architecture="amd64"),
        check_isolation=unused,
    )


def spec_of(docker_image: str) -> Spec:
    return evolve(submitted().spec, docker_image=docker_image)


async def test_many_requests_look_up_their_image_once() -> None:
    images = CountedImages({"a", "b"})
    finder = environments_on(images)
    for name in ("a", "b", "a", "a"):
        found = await finder.find(spec_of(name))
        assert found is not None
        assert found.names == (name,)
    assert images.lookups == ["a", "b"]


async def test_an_image_is_looked_up_again_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOUND_SECONDS", 0.0)
    images = CountedImages({"a"})
    finder = environments_on(images)
    assert await finder.find(spec_of("a")) is not None
    images.present.clear()
    assert await finder.find(spec_of("a")) is None


@pytest.mark.parametrize(("seconds", "is_recorded"), [(-3600, True), (-30, False), (30, False), (3600, True)])
async def test_a_use_is_recorded_whichever_clock_is_ahead(seconds: float, is_recorded: bool) -> None:
    """The time of the last use is by the engine's clock."""
    images = CountedImages({f"{PULLED_REPOSITORY}:a"}, used_ago=timedelta(seconds=seconds))
    assert await environments_on(images).find(spec_of(f"{PULLED_REPOSITORY}:a")) is not None
    assert bool(images.tags) == is_recorded


@pytest.mark.parametrize(("age", "is_found"), [(timedelta(days=30), False), (timedelta(hours=1), True)])
async def test_only_the_engine_makes_an_environment_expire(age: timedelta, is_found: bool) -> None:
    """If the clock of this machine is 30 days ahead, each run would repeat the setup."""
    spec = evolve(spec_of("a"), pre_commands=("true",))
    found = await evolve(environments_on(SlowClock(age)), config=DAILY).find(spec)
    assert (found is not None) == is_found


async def test_a_missing_image_is_found_as_soon_as_it_exists() -> None:
    images = CountedImages(set())
    finder = environments_on(images)
    assert await finder.find(spec_of("a")) is None
    images.present.add("a")
    assert await finder.find(spec_of("a")) is not None
