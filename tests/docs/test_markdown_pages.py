"""Follow the links of /llms.txt on a server, as an agent does: each page is served as it is in the repository."""

from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import aiohttp
import pytest
from yarl import URL

from tests.docs.blocks import prose_of, served_pages, text_of
from tests.docs.test_links import LINK
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
                text = await page.text()
            assert text == text_of(path[1:])
            links = {urldefrag(urljoin(path, link)).url for link in LINK.findall(prose_of(path[1:]))}
            linked = {link for link in links if link.endswith(".md")} - found
            found |= linked
            waiting.extend(linked)
    assert found == {f"/{page}" for page in served_pages()}


async def test_head_has_the_headers_of_get(web: Web) -> None:
    headers = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(web.url, headers=headers) as http:
        for path in ("/llms.txt", "/docs/api.md"):
            async with http.head(path) as head, http.get(path) as get:
                assert (head.status, await head.read()) == (200, b"")
                names = ("Content-Type", "Content-Length", "ETag")
                assert [head.headers[name] for name in names] == [get.headers[name] for name in names]


async def test_no_other_file_is_served(web: Web) -> None:
    paths = ["/docs/nothing.md", "/docs/design/", "/docs/speed.svg", "/LICENSE", "/pages/README.md"]
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
