"""Test /docs in a real browser: it lists every endpoint, and "Try it out" runs programs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Locator, Page
from playwright.async_api import Error as PlaywrightError

from pyexec.web.application import ROUTES
from tests.support.archives import tar_of
from tests.support.browser import page_of
from tests.support.cases import sampled
from tests.support.server import Server, running_server

TOKEN = "a-token"
SAFE_TYPES = ("application/json", "text/event-stream", "text/plain", "application/x-tar")
KEPT = ("Accept", "Content-Type", "Content-Encoding", "Content-Security-Policy")

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the loop of the browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(server: Server, browser: Browser) -> AsyncIterator[Page]:
    async with page_of(server.url, browser=browser) as (opened, wrong):
        await opened.goto(f"{server.url}/docs")
        yield opened
        assert wrong == []


async def endpoint(page: Page, name: str) -> Locator:
    """Open the box of an endpoint and click "Try it out"."""
    box = page.locator(f".opblock[id$='-{name}']")
    await box.locator(".opblock-summary-control").click()
    await box.get_by_role("button", name="Try it out").click()
    return box


async def answer(box: Locator) -> tuple[str, Any]:
    """Send the request, and return the status and the JSON of the response."""
    await box.get_by_role("button", name="Execute").click()
    live = box.locator(".live-responses-table .response")
    status = await live.locator(".response-col_status").inner_text()
    return status.split()[0], json.loads(
        await live.locator(".response-col_description pre").first.inner_text()
    )


async def test_shows_every_endpoint(page: Page) -> None:
    await page.locator(".opblock").first.wait_for()
    assert await page.locator(".opblock").count() == len(ROUTES)
    assert await page.locator(".errors-wrapper").count() == 0
    assert await page.locator(".scheme-container").get_by_role("button", name="Authorize").count() == 0


@pytest.mark.full  # test_works_behind_a_prefix runs it, too
async def test_runs_the_example_of_eval(page: Page) -> None:
    status, result = await answer(await endpoint(page, "evaluate"))
    assert (status, result["status"], result["result"]) == ("200", "completed", "42")


async def test_runs_code_that_is_typed_in(page: Page) -> None:
    box = await endpoint(page, "evaluate")
    await box.locator("textarea.body-param__text").fill(json.dumps({"code": "print('typed')"}))
    status, result = await answer(box)
    assert (status, result["stdout"]) == ("200", "typed\n")


async def test_nothing_in_a_display_is_executed(server: Server, browser: Browser) -> None:
    """Neither /docs nor a response that a browser opens runs HTML, scripts or SVG that a program has made."""
    evil = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"document.title = 'evil'\">{evil}</svg>"
    bundle = {"text/html": evil, "image/svg+xml": svg, "application/javascript": "document.title = 'evil'"}
    code = (
        f"display({bundle!r}, raw=True)\nprint({evil!r})\nfor name in FILES: open(name, 'w').write({svg!r})"
    )
    files = ("evil.html", "evil.svg", "evil.xhtml")
    body = {"code": f"FILES = {files}\n{code}", "output_files": ["evil.*"]}
    async with page_of(server.url, browser=browser) as (page, wrong):
        await page.goto(f"{server.url}/docs")
        box = await endpoint(page, "evaluate")
        await box.locator("textarea.body-param__text").fill(json.dumps(body))
        _, result = await answer(box)
        assert result["displays"] == [{"data": bundle, "metadata": {}}]
        assert await page.title() != "evil"
        path = f"{server.url}/api/v1/executions/{result['execution_id']}"
        opened = [path, f"{path}/events", f"{path}/logs", f"{server.url}/api/v1/executions", f"{path}/files"]
        opened += [f"{path}/files/{name}" for name in files]
        opened += [f"{server.url}/api/v1/executions/{quote(evil)}", f"{server.url}/{quote(evil)}"]
        for url in opened:
            await page.goto("about:blank")
            with suppress(PlaywrightError):  # a download, which the browser does not open
                await page.goto(url)
            assert (url, await page.evaluate("document.scripts.length + document.images.length")) == (url, 0)
            assert (url, await page.title()) != (url, "evil")
        async with aiohttp.ClientSession() as http:
            for url in opened:
                async with http.get(url) as response:
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
                    is_download = response.headers.get("Content-Disposition", "").startswith("attachment")
                    assert is_download or response.content_type in SAFE_TYPES, url
        assert [told for told in wrong if "the server responded with a status of 404" not in told] == []


async def test_uploads_an_archive_with_metadata(page: Page, tmp_path: Path) -> None:
    archive = tmp_path / "main.tar"
    archive.write_bytes(tar_of({"other.py": "import sys; print(sys.argv[1:])"}))
    box = await endpoint(page, "exec_sync")
    await box.locator("input[type=file]").set_input_files(archive)
    metadata = {"entrypoint": "other.py", "script_args": ["from a browser"]}
    await box.locator("tr[data-property-name=metadata] textarea").fill(json.dumps(metadata))
    status, result = await answer(box)
    assert (status, result.get("stdout")) == ("200", "['from a browser']\n"), result


@asynccontextmanager
async def behind_a_prefix(url: str) -> AsyncIterator[str]:
    """Start a proxy that serves the server below a path prefix."""
    async with aiohttp.ClientSession(auto_decompress=False) as http:

        async def pass_on(request: web.Request) -> web.Response:
            headers = {name: request.headers[name] for name in KEPT if name in request.headers}
            target = f"{url}/{request.match_info['rest']}"
            async with http.request(
                request.method, target, data=await request.read(), headers=headers
            ) as answer:
                forwarded = {name: answer.headers[name] for name in KEPT if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.read(), headers=forwarded)

        app = web.Application()
        app.router.add_route("*", "/a/prefix/{rest:.*}", pass_on)
        async with TestServer(app) as proxy:
            yield str(proxy.make_url("/a/prefix"))


@sampled("page", ["docs", "docs/"])
async def test_works_behind_a_prefix(server: Server, browser: Browser, page: str) -> None:
    async with behind_a_prefix(server.url) as url, page_of(url, browser=browser) as (opened, wrong):
        await opened.goto(f"{url}/{page}")
        status, result = await answer(await endpoint(opened, "evaluate"))
        assert (status, result["result"], wrong) == ("200", "42", [])


async def test_sends_the_token_that_the_user_enters(image: str, browser: Browser, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, api_tokens=TOKEN, warm_pool="1") as guarded:
        async with page_of(guarded.url, browser=browser) as (page, _):
            await authorize(page, guarded.url)
            status, result = await answer(await endpoint(page, "evaluate"))
            assert (status, result["result"]) == ("200", "42")


async def authorize(page: Page, url: str) -> None:
    """Try to list executions without a token, and enter the token."""
    await page.goto(f"{url}/docs")
    status, problem = await answer(await endpoint(page, "list_executions"))
    assert (status, problem["code"]) == ("401", "unauthorized")
    await page.locator(".scheme-container").get_by_role("button", name="Authorize").click()
    form = page.locator(".auth-container")
    await form.locator("input").fill(TOKEN)
    await form.get_by_role("button", name="Apply credentials").click()
    await form.get_by_role("button", name="Close").click()
