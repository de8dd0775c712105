"""Test which images are evicted if the cache is too large."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pyexec.ports import Image
from pyexec.sandbox.environments.environments import IN_USE_SECONDS, images_to_evict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def image(number: int, size: int, idle: float, base: int = 0, *, named: bool = True) -> Image:
    return Image(
        id=str(number),
        digest=str(number),
        names=[f"pyexec-env:{number}"] if named else [],
        size_bytes=base + size,
        architecture="amd64",
        created_at=NOW - timedelta(days=9),
        used_at=NOW - timedelta(seconds=idle),
        labels={"pyexec.base-size": str(base)} if base else {},
    )


facts = st.tuples(st.integers(0, 100), st.floats(0, 1000), st.integers(0, 50), st.booleans())
images = st.lists(facts, max_size=8).map(
    lambda parts: [
        image(n, size, idle, base, named=named) for n, (size, idle, base, named) in enumerate(parts)
    ]
)


@given(images, st.integers(0, 300))
def test_the_least_recently_used_images_are_evicted_until_the_rest_fits(kept: list[Image], most: int) -> None:
    going = images_to_evict(kept, most, NOW)
    staying = [image for image in kept if image not in going]
    oldest = min((image.used_at for image in staying), default=NOW)
    for gone in going:
        idle = (NOW - gone.used_at).total_seconds()
        assert not gone.names or (idle >= IN_USE_SECONDS and gone.used_at <= oldest)
    sizes = [image.size_bytes - int(image.labels.get("pyexec.base-size", "0")) for image in staying]
    removable = [i for i in staying if (NOW - i.used_at).total_seconds() > IN_USE_SECONDS]
    assert sum(sizes) <= most or not removable
    assert all(image.names for image in staying)


def test_no_image_is_evicted_below_the_limit() -> None:
    kept = [image(1, 50, 500), image(2, 50, 600)]
    assert images_to_evict(kept, 100, NOW) == []
    assert images_to_evict(kept, 99, NOW) == [kept[1]]


def test_layers_of_the_base_image_do_not_count() -> None:
    kept = [image(number, 10, 500, base=1000) for number in range(5)]
    assert images_to_evict(kept, 50, NOW) == []
