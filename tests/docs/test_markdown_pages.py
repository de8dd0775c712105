"""Follow the links of /llms.txt on a server, as an agent does: each page and each linked file is served as it is in
the repository."""

import re
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import aiohttp
import pytest
from yarl import URL

from tests.docs.blocks import prose_of, served_pages
from tests.docs.test_links import LINK
from tests.support.paths import ROOT
from tests.web.in_process import Web, running_web


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_web(tmp_path) as web:
        yield web


async def test_each_link_from_page_to_page_works_on_the_server(web: Web) -> None:
    found = {"/llms.txt"}
    waiting = deque(found)
    async with aiohttp.ClientSession(web.url) as http:
        while waiting:
            path = waiting.popleft()
            async with http.get(path) as page:
                assert (path, page.status) == (path, 200)
                assert await page.read() == (ROOT / path[1:]).read_bytes()
            if path.endswith((".md", "llms.txt")):
                links = {urldefrag(urljoin(path, link)).url for link in LINK.findall(prose_of(path[1:]))}
                linked = {link for link in links if "://" not in link} - found
                found |= linked
                waiting.extend(linked)
    assert found >= {f"/{page}" for page in served_pages()}


@pytest.mark.parametrize("start", ["/", "/docs", "/docs/"])
async def test_each_link_of_an_html_page_works(web: Web, start: str) -> None:
    async with aiohttp.ClientSession(web.url) as http:
        async with http.get(start) as page:
            text = await page.text()
        base = re.search('<base href="(.*?)">', text)
        origin = urljoin(start, base[1] if base else "")
        links = re.findall('<(?!base)[^>]* (?:href|src)="([^"#]+)"', text)
        assert links
        for link in links:
            async with http.get(urljoin(origin, link)) as linked:
                assert (link, linked.status) == (link, 200)


async def test_linked_files_have_their_types(web: Web) -> None:
    types = {
        "/docs/speed.svg": "image/svg+xml",
        "/docs/console/run.webp": "image/webp",
        "/LICENSE": "text/plain",
    }
    async with aiohttp.ClientSession(web.url) as http:
        for path, kind in types.items():
            async with http.get(path) as page:
                assert (path, page.content_type) == (path, kind)


async def test_head_has_the_headers_of_get(web: Web) -> None:
    headers = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(web.url, headers=headers) as http:
        for path in ("/llms.txt", "/docs/api.md"):
            async with http.head(path) as head, http.get(path) as get:
                assert (head.status, await head.read()) == (200, b"")
                names = ("Content-Type", "Content-Length", "ETag")
                assert [head.headers[name] for name in names] == [get.headers[name] for name in names]


async def test_no_other_file_is_served(web: Web) -> None:
    paths = ["/docs/nothing.md", "/docs/design/", "/docs/console/", "/pages/README.md"]
    paths += [
        "/docs/..%2fREADME.md",
        "/docs/%2e%2e%2f%2e%2e%2fserver.py",
        "/docs//etc/passwd",
        "/docs/api.md%00",
    ]
    async with aiohttp.ClientSession(web.url) as http:
        for path in paths:
            async with http.get(URL(web.url + path, encoded=True)) as page:
                assert (path, page.status) == (path, 404)


async def test_the_pages_need_no_token(tmp_path: Path) -> None:
    async with running_web(tmp_path, api_tokens="a-token") as web, aiohttp.ClientSession(web.url) as http:
        for path, status in (
            ("/llms.txt", 200),
            ("/README.md", 200),
            ("/docs/api.md", 200),
            ("/metrics", 401),
        ):
            async with http.get(path) as page:
                assert (path, page.status) == (path, status)
