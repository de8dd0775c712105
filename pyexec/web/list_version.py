"""The version of a list as its `ETag`, so that clients can wait for the next one."""

import re

from aiohttp import web

# A larger number is no index of Consul.
_VERSION = re.compile("[0-9]{1,19}", re.ASCII)


def known_version(request: web.Request) -> int | None:
    """Return the version of the list that the client has."""
    tags = [tag.value for tag in request.if_none_match or ()]
    return int(tags[0]) if len(tags) == 1 and _VERSION.fullmatch(tags[0]) else None


def version_headers(version: int) -> dict[str, str]:
    """Return the headers of a response with this version of a list."""
    return {"ETag": f'W/"{version}"', "Cache-Control": "no-cache", "Vary": "Authorization"}
