"""Decide whether the Python of an image satisfies `requires-python`, and which image does."""

import re
from collections.abc import Iterator, Mapping

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pyexec.domain.spec import Policy, Spec
from pyexec.errors import PythonMismatch, quote, shorten

OLDEST_MINOR, NEWEST_MINOR = 8, 14
"""The versions 3.X of the official images `python:3.X-slim` that are offered if no other image fits."""
SPECIFIER_LENGTH_MAX, CLAUSES_MAX = 256, 16
"""Limits of `requires-python`. The time to compare it with the version of an image grows with its clauses."""
_OFFICIAL = re.compile(
    r"(?:docker\.io/)?(?:library/)?python:(3\.\d{1,2}(?:\.\d{1,3})?)(?:-[a-z0-9.-]+)?(?:@.+)?"
)
_WILDCARDS = frozenset("*?[")


def tag_version(image: str) -> str | None:
    """Return the version that the name of an official Python image has, as 3.12 or 3.12.4; None for other images."""
    found = _OFFICIAL.fullmatch(image)
    return None if found is None else found[1]


def specifier_defect(requires_python: object) -> str | None:
    """Return what is wrong with a `requires-python`; None if nothing is."""
    if not isinstance(
        requires_python, str
    ):  # the text of a number or of a nested table may be too long to write
        return "requires-python must be a version specifier such as '>=3.12', in quotes"
    if len(requires_python) > SPECIFIER_LENGTH_MAX or requires_python.count(",") >= CLAUSES_MAX:
        return f"requires-python may have at most {SPECIFIER_LENGTH_MAX} characters and {CLAUSES_MAX} clauses"
    try:
        SpecifierSet(requires_python)
    except ValueError:  # also a number of more digits than Python converts
        return f"requires-python must be a version specifier such as '>=3.12', not {quote(requires_python)}"
    return None


def may_satisfy(requires_python: str, version: str | None) -> bool:
    """Return False if this version certainly does not satisfy the specifier.

    A version with two numbers, such as 3.12, stands for all its releases; None is an unknown version."""
    if version is None:
        return True
    try:
        parsed = Version(version.rstrip("+"))  # as in 3.13.0+, a build from the repository
    except ValueError:
        return True
    specifiers = SpecifierSet(requires_python)
    if len(parsed.release) == 2 and not parsed.is_prerelease:
        return any(specifiers.contains(f"{parsed.public}.{patch}") for patch in _patches(requires_python))
    return specifiers.contains(parsed, prereleases=True)


def _patches(requires_python: str) -> list[int]:
    """Return the third numbers of versions that represent all others below 100.

    Between two numbers of the specifier, it treats all versions alike."""
    named = {int(digits) for digits in re.findall(r"(?<!\d)\d{1,2}(?!\d)", requires_python, re.ASCII)}
    return sorted({0, *named, *(number + 1 for number in named if number < 99)})


def check_python(spec: Spec, version: str | None) -> None:
    """Raise `PythonMismatch` if the Python of the spec's image does not satisfy what its script requires."""
    required = spec.requires_python
    if required is not None and not may_satisfy(required, version):
        raise PythonMismatch(
            f"the script requires Python {shorten(required)}, but the image {spec.docker_image!r} has Python "
            f"{version}; name another image, or send inline_requirements: false"
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


def list_versions(images: Mapping[str, str]) -> str:
    """List images that have these versions of Python, the oldest version first, for a message."""
    in_order = sorted(images, key=lambda image: Version(images[image].rstrip("+")))
    return ", ".join(f"{image} has Python {images[image]}" for image in in_order)


def _minor_of(version: str | None) -> int:
    found = re.match(r"3\.(\d{1,3})", version or "")
    return OLDEST_MINOR if found is None else int(found[1])
