"""The documentation as Markdown: `/llms.txt`, and each page at its path in the repository.

The paths are the same, so relative links between the pages work here, too. `pyexec/web/pages` has symbolic links to the
pages of the repository; an installed package has copies."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from aiohttp import web

from pyexec.web.static_file import StaticFile

_FOLDER = Path(str(files("pyexec.web") / "pages"))
_PATTERNS = ("llms.txt", "*.md", "*/*.md", "*/*/*.md")
PAGES = frozenset(f"/{page.relative_to(_FOLDER)}" for pattern in _PATTERNS for page in _FOLDER.glob(pattern))
"""The paths of all pages. The server serves no other file of the folder."""


def add_pages(app: web.Application) -> None:
    """Add a route for each page."""
    for path in PAGES:
        app.router.add_get(path, _serve)
        app.router.add_get(f"{path}/", _serve)


async def _serve(request: web.Request) -> web.StreamResponse:
    return await _read(request.path.rstrip("/")).handle(request)


@cache
def _read(path: str) -> StaticFile:
    """Read a page at the first request for it, so that the server starts faster."""
    kind = "markdown" if path.endswith(".md") else "plain"
    return StaticFile.of((_FOLDER / path[1:]).read_bytes(), f"text/{kind}; charset=utf-8")
