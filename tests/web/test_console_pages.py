"""Test each page of the console: accessibility, small screens, and what an idle page costs the server."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.support.api import api_of
from tests.support.browser import page_of
from tests.support.console import console
from tests.support.server import Server
from tests.support.sessions import opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDLE_SECONDS = 4
LOAD_SECONDS_MAX = 30
ATTEMPTS_MAX = 10
PHONE = {"width": 360, "height": 740}
LONG = "a-word-that-is-longer-than-a-phone-is-wide-" * 3
CELL = f"""
from IPython.display import SVG, HTML
print({LONG!r})
display(SVG("<svg xmlns='http://www.w3.org/2000/svg' width='900' height='90'><rect width='900' height='90'/></svg>"))
display(HTML("<table><tr>" + 40 * "<td>cell</td>" + "</tr></table>"))
raise ValueError({LONG!r})
"""
TOO_WIDE = """() => [...document.querySelectorAll("main *, header *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .filter((element) => !element.closest(".scroll, .tabs, .editor, .terminal, pre"))
  .map((element) => element.outerHTML.slice(0, 200))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paths(server: Server, session_image: str) -> AsyncIterator[Mapping[str, str]]:
    """Yield the fragment of each page, and what it shows when it is ready."""
    async with api_of(server.url) as api, opened(api, docker_image=session_image) as session:
        execution = (await session.result(CELL))["execution_id"]
        yield {
            "/run": ".prism-code-editor",
            "/executions": "tbody tr",
            f"/executions/{execution}": ".facts",
            "/sessions": "tbody tr",
            f"/sessions/{session.document['id']}": ".cell-card .notice.error",
            "/cluster": ".card .meter",
        }


async def open_page(page: Page, url: str, path: str, ready: str) -> None:
    await page.goto(f"{url}/#{path}")
    await expect(page.locator(ready).first).to_be_visible()


async def loaded(page: Page, requests: Counter[str]) -> None:
    """Wait until no page sends more than one request in a second: on a busy machine they load for long."""
    for _ in range(LOAD_SECONDS_MAX):
        requests.clear()
        await page.wait_for_timeout(1000)
        if all(count <= 1 for count in requests.values()):
            return
    raise AssertionError(f"pages still send {requests} requests per second")


async def version_of(server: Server) -> str:
    """Return the version of the list of executions."""
    async with api_of(server.url) as api, api.session.get("/api/v1/executions?limit=1") as answer:
        return answer.headers["ETag"]


async def test_no_page_has_barriers_in_light_and_dark(
    browser: Browser, server: Server, paths: Mapping[str, str]
) -> None:
    async with console(browser, server.url) as (page, _):
        for path, ready in paths.items():
            await open_page(page, server.url, path, ready)
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                found = await Axe().run(page)
                assert found.violations_count == 0, f"{path}, {scheme}: {found.generate_report()}"


async def test_every_page_fits_on_a_phone(browser: Browser, server: Server, paths: Mapping[str, str]) -> None:
    async with console(browser, server.url) as (page, _):
        await page.set_viewport_size(PHONE)
        for path, ready in paths.items():
            await open_page(page, server.url, path, ready)
            assert await page.evaluate(TOO_WIDE) == [], path
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


async def test_an_idle_page_sends_at_most_one_request_in_two_seconds(
    browser: Browser, server: Server, paths: Mapping[str, str]
) -> None:
    """Pages that wait for a change send even less. `tests/services/test_session_directory.py`, `test_list_changes.py`
    and `tests/services/test_cluster.py` test that such a request costs Consul nothing, or one wait for a change."""
    requests: Counter[str] = Counter()
    async with page_of(server.url, browser=browser) as (first, _):
        for path, ready in paths.items():
            page = await first.context.new_page()
            page.on("request", lambda _, path=path: requests.update([path]))
            await open_page(page, server.url, path, ready)
        for _ in range(ATTEMPTS_MAX):
            version = await version_of(server)
            await loaded(first, requests)
            requests.clear()
            await first.wait_for_timeout(1000 * IDLE_SECONDS)
            if await version_of(server) == version:
                break  # else a program of an earlier test has ended, and the pages had something to read
        else:
            raise AssertionError("the server is never idle")
    assert all(count <= IDLE_SECONDS / 2 for count in requests.values()), requests
