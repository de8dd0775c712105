"""Decide whether the Python of an image satisfies `requires-python`, and which image does."""

import re
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from pyexec.domain.spec import Policy, Spec
from pyexec.errors import PythonMismatch

OLDEST_MINOR, NEWEST_MINOR = 8, 14
"""The versions 3.X of the official images `python:3.X-slim` that are offered if no other image fits."""
_PATCHES = range(100)
_OFFICIAL = re.compile(
    r"(?:docker\.io/)?(?:library/)?python:(3\.\d{1,2}(?:\.\d{1,3})?)(?:-[a-z0-9.-]+)?(?:@.+)?"
)
_WILDCARDS = frozenset("*?[")


def tag_version(image: str) -> str | None:
    """Return the version that the name of an official Python image has, as 3.12 or 3.12.4; None for other images."""
    found = _OFFICIAL.fullmatch(image)
    return None if found is None else found[1]


def may_satisfy(requires_python: str, version: str | None) -> bool:
    """Return False if this version certainly does not satisfy the specifier.

    A version with two numbers, such as 3.12, stands for all its releases; None is an unknown version."""
    if version is None:
        return True
    try:
        parsed = Version(version.rstrip("+"))  # as in 3.13.0+, a build from the repository
    except InvalidVersion:
        return True
    specifiers = SpecifierSet(requires_python)
    if len(parsed.release) == 2 and not parsed.is_prerelease:
        return any(specifiers.contains(f"{parsed.public}.{patch}") for patch in _PATCHES)
    return specifiers.contains(parsed, prereleases=True)


def check_python(spec: Spec, version: str | None) -> None:
    """Raise `PythonMismatch` if the Python of the spec's image does not satisfy what its script requires."""
    required = spec.requires_python
    if required is not None and not may_satisfy(required, version):
        raise PythonMismatch(
            f"the script requires Python {required}, but the image {spec.docker_image!r} has Python {version}; name "
            "another image, or send inline_requirements: false"
        )


def images_to_try(policy: Policy, default_version: str | None) -> Iterator[str]:
    """Yield the images for a request that names none: the default image, the allowed images, then official ones.

    Of the official images, newer versions than the default image's come first, the nearest first."""
    yield policy.default_image
    named = [image for image in policy.allowed_images if not _WILDCARDS & set(image)]
    yield from named
    default = _minor_of(default_version)
    for minor in sorted(
        range(OLDEST_MINOR, NEWEST_MINOR + 1), key=lambda each: (each < default, abs(each - default))
    ):
        image = f"python:3.{minor}-slim"
        if policy.allows(image) and image not in (policy.default_image, *named):
            yield image


def _minor_of(version: str | None) -> int:
    found = re.match(r"3\.(\d{1,3})", version or "")
    return OLDEST_MINOR if found is None else int(found[1])
