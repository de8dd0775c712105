"""Whose page a browser sends a request for: any page that somebody has open can make his browser send some, also to
servers that nobody but that browser reaches. Its answer is kept from the page, but what it does is done."""

from urllib.parse import urlsplit

from aiohttp import web

READING = ("GET", "HEAD")
"""Requests that change nothing."""


def is_for_another_site(request: web.Request) -> bool:
    """Whether a browser sends this for a page of another site, and it would change something. Programs that are no
    browsers send neither of the two headers."""
    if request.method in READING:
        return False
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:
        return True
