"""Test which images are evicted if the cache is too large."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.environment import REPOSITORY, build_tag, is_replaced, stored_bytes
from pyexec.errors import Unavailable
from pyexec.ports import Image
from pyexec.sandbox.environments import eviction
from pyexec.sandbox.environments.eviction import (
    IN_USE_SECONDS,
    PULLED_REPOSITORY,
    Eviction,
    has_foreign_name,
    images_to_evict,
    pulled_tag,
)
from tests.support.images import docker, own_image
from tests.support.session_sandboxes import connected_engine

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def image(number: int, size: int, idle: float, *, replaced: bool = False) -> Image:
    tags = [build_tag(str(number), size, "0"), *([] if replaced else [str(number)])]
    return Image(
        id=str(number),
        digest=str(number),
        names=[f"{REPOSITORY}:{tag}" for tag in tags],
        size_bytes=1000 + size,
        architecture="amd64",
        created_at=NOW - timedelta(days=9),
        used_at=NOW - timedelta(seconds=idle),
    )


facts = st.tuples(st.integers(0, 100), st.floats(0, 1000), st.booleans())
images = st.lists(facts, max_size=8).map(
    lambda parts: [
        image(number, size, idle, replaced=replaced)
        for number, (size, idle, replaced) in enumerate([(0, 0, False), *parts])
    ]
)


@given(images, st.integers(0, 300))
def test_the_least_recently_used_images_are_evicted_until_the_rest_fits(kept: list[Image], most: int) -> None:
    going = images_to_evict(kept, most, NOW)
    staying = [image for image in kept if image not in going]
    removable = [image for image in staying if (NOW - image.used_at).total_seconds() >= IN_USE_SECONDS]
    oldest = min((image.used_at for image in removable), default=NOW)
    for gone in going:
        assert (NOW - gone.used_at).total_seconds() >= IN_USE_SECONDS
        assert is_replaced(gone.names) or gone.used_at <= oldest
    assert sum(stored_bytes(image.names) or 0 for image in staying) <= most or not removable
    assert not any(is_replaced(image.names) for image in removable)


def test_no_image_is_evicted_below_the_limit() -> None:
    kept = [image(1, 50, 500), image(2, 49, 600), image(3, 1, 0)]
    assert images_to_evict(kept, 100, NOW) == []
    assert images_to_evict(kept, 99, NOW) == [kept[1]]


@pytest.mark.parametrize("ahead", [timedelta(days=30), timedelta(days=-30)])
def test_a_wrong_clock_evicts_no_image_in_use(ahead: timedelta) -> None:
    """The clock of this machine may differ from the engine's, which records the uses."""
    kept = [image(1, 50, IN_USE_SECONDS - 1), image(2, 50, 0), image(3, 50, IN_USE_SECONDS + 1)]
    assert images_to_evict(kept, 10, NOW + ahead) == ([kept[2]] if ahead > timedelta(0) else [])


def test_images_become_idle_while_no_image_is_used() -> None:
    """No build may follow a burst of builds. A wrong clock of this machine evicts nothing then, either."""
    kept = [image(1, 50, 150), image(2, 50, 130), image(3, 50, 130)]
    ahead = NOW + timedelta(days=30)
    unused_for = timedelta(seconds=130)
    assert images_to_evict(kept, 10, ahead, timedelta(seconds=99)) == []
    assert images_to_evict(kept, 10, ahead, timedelta(seconds=100)) == kept[:1]
    assert images_to_evict([*kept, image(4, 50, 129)], 100, ahead, unused_for) == kept[:2]
    assert images_to_evict([image(1, 50, 150)], 10, NOW, unused_for) == []


def test_an_image_in_which_a_program_runs_counts() -> None:
    kept = [image(number, 50, 1000 - 200 * number) for number in range(5)]
    assert images_to_evict(kept, 150, NOW, busy=["0"]) == kept[1:3]


@pytest.mark.parametrize(
    ("pulled", "names", "is_foreign"),
    [
        (["team/python:1"], ["team/python:1"], False),
        (["python"], ["python:latest"], False),
        (["docker.io/library/python:3.12"], ["python:3.12"], False),
        (["docker.io/team/python"], ["team/python:latest"], False),
        (["team/python@sha256:ab"], [], False),
        (["python:3", "python:3.12"], ["python:3", "python:3.12"], False),
        (["python:3.12"], ["python:3.12", "ours/base:prod"], True),
        (["python:3.12"], ["ours/base:prod"], True),
        ([], ["pyexec-env:key", "pyexec-env:key.12.ab"], False),
        ([], ["pyexec-env:key", "pyexec-env:key.12.ab", "ours/environment:1"], True),
    ],
)
def test_an_image_to_which_the_operator_gave_a_name_is_not_removed(
    pulled: list[str], names: list[str], is_foreign: bool
) -> None:
    marks = [f"{PULLED_REPOSITORY}:{pulled_tag(name)}" for name in pulled]
    assert has_foreign_name([*marks, *names]) == is_foreign


def test_layers_of_the_base_image_do_not_count() -> None:
    kept = [image(number, 10, 500) for number in range(5)]
    assert images_to_evict(kept, 50, NOW) == []


@pytest.mark.parametrize(
    ("names", "size"),
    [
        (["pyexec-env:k.12.ab", "pyexec-env:k"], 12),
        (["pyexec-env:k"], None),
        (["pyexec-env:k.12"], None),
        (["evil/pyexec-env:k.0.ab", "other:k.0.ab"], None),
        ([], None),
    ],
)
def test_only_names_of_environments_have_a_size(names: list[str], size: int | None) -> None:
    assert stored_bytes(names) == size


def test_an_image_with_another_name_is_not_replaced() -> None:
    assert is_replaced(["pyexec-env:k.12.ab"])
    assert not is_replaced(["pyexec-env:k.12.ab", "pyexec-env:k"])
    assert not is_replaced(["pyexec-env:k.12.ab", "mine:1"])
    assert not is_replaced([])


class CachedImages:
    """The images of an engine, by id. Programs run in those in `busy`; the first `failures` lists fail."""

    def __init__(self, *cached: Image, busy: Sequence[str] = (), failures: int = 0) -> None:
        self.cached = {each.id: each for each in cached}
        self.busy = busy
        self.failures = failures
        self.lists = 0

    async def list(self, repository: str) -> Sequence[Image]:
        self.lists += 1
        if self.lists <= self.failures:
            raise Unavailable("Docker does not answer")
        return [each for each in self.cached.values() if each.names[0].startswith(repository)]

    async def remove(self, image: Image) -> bool:
        if image.id not in self.busy:
            del self.cached[image.id]
        return image.id not in self.busy


def idle_now(number: int, idle: float) -> Image:
    return evolve(image(number, 50, 0), used_at=datetime.now(UTC) - timedelta(seconds=idle))


def evicting(engine: CachedImages, limit: int) -> Eviction:
    return Eviction(engine, limit, lambda: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("failures", [0, 1])
async def test_images_of_a_burst_are_evicted_later(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "IN_USE_SECONDS", 0.1)
    monkeypatch.setattr(eviction, "REPEAT_SECONDS", 0.15)
    engine = CachedImages(*(idle_now(number, 0.05 - number / 100) for number in range(5)), failures=failures)
    with anyio.fail_after(5):
        await evicting(engine, 100).run()
    assert list(engine.cached) == ["3", "4"]


async def test_eviction_runs_once_at_a_time_until_the_rest_fits() -> None:
    """A build makes a running eviction repeat at once. The end of the server ends it."""
    engine = CachedImages(*(idle_now(number, 1000 - 200 * number) for number in range(4)), busy=["0"])
    running = evicting(engine, 50)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.run)
            await anyio.wait_all_tasks_blocked()
            assert list(engine.cached) == ["0", "3"]
            lists, engine.busy = engine.lists, ()
            await running.run()
            await running.run()
            assert engine.lists == lists
        assert list(engine.cached) == ["3"]
        assert engine.lists == 2 * lists
        async with anyio.create_task_group() as tasks:
            engine.failures = 1000
            tasks.start_soon(running.run)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


async def test_an_image_in_use_keeps_its_names(image: str) -> None:
    """Docker removes all names of such an image except the last one."""
    with own_image(image) as own:
        other = own.replace("pyexec-test-own", "pyexec-test-another")
        docker("tag", own, other)
        (container,) = docker("run", "--detach", "--network=none", "--entrypoint=sleep", own, "60")
        async with connected_engine() as engine:
            in_use = await engine.images.find(own)
            assert in_use is not None
            assert not await engine.images.remove(in_use)
            still = await engine.images.find(own)
            assert still is not None
            assert sorted(still.names) == sorted([own, other])
            docker("rm", "--force", container)
            assert await engine.images.remove(still)
            assert await engine.images.find(other) is None
