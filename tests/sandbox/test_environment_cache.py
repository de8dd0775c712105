"""Test which images are evicted if the cache is too large."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.environment import REPOSITORY, build_tag, is_replaced, stored_bytes
from pyexec.ports import Image
from pyexec.sandbox.environments.environments import (
    IN_USE_SECONDS,
    PULLED_REPOSITORY,
    has_foreign_name,
    images_to_evict,
)

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
    marks = [f"{PULLED_REPOSITORY}:{hashlib.sha256(name.encode()).hexdigest()}" for name in pulled]
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
