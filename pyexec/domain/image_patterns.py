"""Match the names of images with the operator's patterns (PYEXEC_ALLOWED_IMAGES)."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

ALL = "*"


def is_allowed(image: str, patterns: Iterable[str]) -> bool:
    """Return True if a pattern matches the name of an image.

    The name `python:5000/app` is that of the image `app` on the host `python`. So for an image of a named registry, the
    pattern must name a registry, too, before its first slash: otherwise `python:*` would allow any image of that host,
    and `python*` those of `python.example.com`."""
    registry = _registry_of(image)
    return any(
        fnmatchcase(image, pattern) and (not registry or _matches_registry(registry, pattern))
        for pattern in patterns
    )


def _matches_registry(registry: str, pattern: str) -> bool:
    if pattern == ALL:
        return True
    first, slash, _ = pattern.partition("/")
    return bool(slash) and (first == ALL or _is_registry(first)) and fnmatchcase(registry, first)


def _registry_of(image: str) -> str:
    """Return the host in the name of an image; empty if it names none, which means Docker Hub."""
    first, slash, _ = image.partition("/")
    return first if slash and _is_registry(first) else ""


def _is_registry(first: str) -> bool:
    """Return True if Docker takes the part before the first slash for a host (distribution/reference)."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()
