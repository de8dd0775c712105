"""Headers by which a client chooses a response: the media type, gzip, and the version of a list that it has."""

import re
from functools import lru_cache

from aiohttp import web

EVENT_STREAM = "text/event-stream"
TAR = "application/x-tar"
_LENGTH_MAX = 4096
"""How many characters of a header are read. A request can have a megabyte of them, and parsing it took 0.65 s."""
_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")
# A larger number is no index of Consul.
_VERSION = re.compile("[0-9]{1,19}", re.ASCII)


def prefers(request: web.Request, media_type: str) -> bool:
    """Return True if the client prefers a media type to JSON (RFC 9110 §12.5.1).

    At the same quality the more specific range wins, so `text/event-stream, */*` asks for events."""
    return _prefers(_value(request, "Accept"), media_type)


def accepts_gzip(request: web.Request) -> bool:
    """Return True if the client accepts a response that is compressed with gzip (RFC 9110 §12.5.3)."""
    codings = _accepted_ranges(_value(request, "Accept-Encoding"))
    return codings.get("gzip", codings.get("*", 0.0)) > 0


def _value(request: web.Request, name: str) -> str:
    return ",".join(request.headers.getall(name, ()))[:_LENGTH_MAX]


@lru_cache(maxsize=64)
def _prefers(accept: str, media_type: str) -> bool:
    ranges = _accepted_ranges(accept)
    return _preference(media_type, ranges) > _preference("application/json", ranges)


def _accepted_ranges(accept: str) -> dict[str, float]:
    """Parse an `Accept` header: the quality of each media range. A malformed quality counts as 1."""
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        qualities = [text[2:].strip() for text in parameters if text.startswith("q=")]
        is_quality = bool(qualities) and _QUALITY.fullmatch(qualities[0]) is not None
        ranges[media_range] = float(qualities[0]) if is_quality else 1.0
    return ranges


def _preference(media_type: str, ranges: dict[str, float]) -> tuple[float, int]:
    """Return the quality of a media type, and the specificity of the range that sets it."""
    for specificity, media_range in ((2, media_type), (1, f"{media_type.partition('/')[0]}/*"), (0, "*/*")):
        if media_range in ranges:
            return ranges[media_range], specificity if ranges[media_range] else 0
    return 0.0, 0


def known_version(request: web.Request) -> int | None:
    """Return the version of the list that the client has."""
    tags = [tag.value for tag in request.if_none_match or ()]
    return int(tags[0]) if len(tags) == 1 and _VERSION.fullmatch(tags[0]) else None


def version_headers(version: int) -> dict[str, str]:
    """Return the headers of a response with this version of a list."""
    return {"ETag": f'W/"{version}"', "Cache-Control": "no-cache", "Vary": "Authorization"}
