"""Follow the links of /llms.txt on a server, as an agent does: each page is served as it is in the repository."""

from collections import deque
from urllib.parse import urldefrag, urljoin

import aiohttp

from tests.docs.blocks import served_pages, text_of
from tests.docs.test_links import LINK
from tests.support.server import Server


async def test_each_link_from_page_to_page_works_on_the_server(server: Server) -> None:
    found = {"/llms.txt"}
    waiting = deque(found)
    async with aiohttp.ClientSession(server.url) as http:
        while waiting:
            path = waiting.popleft()
            async with http.get(path) as page:
                assert (path, page.status) == (path, 200)
                text = await page.text()
            assert text == text_of(path[1:])
            links = {urldefrag(urljoin(path, link)).url for link in LINK.findall(text)}
            linked = {link for link in links if link.endswith(".md")} - found
            found |= linked
            waiting.extend(linked)
    assert found == {f"/{page}" for page in served_pages()}


async def test_head_has_the_headers_of_get(server: Server) -> None:
    headers = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(server.url, headers=headers) as http:
        for path in ("/llms.txt", "/docs/api.md"):
            async with http.head(path) as head, http.get(path) as get:
                assert (head.status, await head.read()) == (200, b"")
                names = ("Content-Type", "Content-Length", "ETag")
                assert [head.headers[name] for name in names] == [get.headers[name] for name in names]
