"""Test each page of the console: accessibility, small screens, and what an idle page costs the server."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.support.api import Api, api_of
from tests.support.browser import page_of
from tests.support.console import console
from tests.support.consul import dev_agent, free_ports
from tests.support.metrics import figures
from tests.support.server import Server, running_server
from tests.support.sessions import Session, opened

IDLE_SECONDS = 4
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


@pytest.fixture
async def paths(api: Api, session: Session) -> Mapping[str, str]:
    return await paths_of(session)


async def paths_of(session: Session) -> Mapping[str, str]:
    """Return the fragment of each page, and what it shows when it is ready."""
    execution = (await session.result(CELL))["execution_id"]
    return {
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


async def test_no_page_has_barriers_in_light_and_dark(server: Server, paths: Mapping[str, str]) -> None:
    async with console(server.url) as (page, _):
        for path, ready in paths.items():
            await open_page(page, server.url, path, ready)
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                found = await Axe().run(page)
                assert found.violations_count == 0, f"{path}, {scheme}: {found.generate_report()}"


async def test_every_page_fits_on_a_phone(server: Server, paths: Mapping[str, str]) -> None:
    async with console(server.url) as (page, _):
        await page.set_viewport_size(PHONE)
        for path, ready in paths.items():
            await open_page(page, server.url, path, ready)
            assert await page.evaluate(TOO_WIDE) == [], path
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


@pytest.mark.independent
async def test_idle_pages_cost_few_requests_and_next_to_nothing_of_consul(
    session_image: str, tmp_path: Path
) -> None:
    """Each page sends at most one request a second. A wait for a change is one request to Consul, if any."""
    requests: Counter[str] = Counter()
    (port,) = free_ports(["replica"]).values()
    with dev_agent(tmp_path / "consul") as consul:
        settings = {"consul_addr": consul.address, "port": str(port), "warm_pool": "0"}
        with running_server(tmp_path / "data", session_image, **settings) as server:
            async with api_of(server.url) as api, opened(api) as session, page_of(server.url) as (first, _):
                paths = await paths_of(session)
                idle = await consul_requests(server, first)
                browser = first.context.browser
                assert browser is not None
                for path, ready in paths.items():
                    page = await browser.new_page()
                    page.on("request", lambda _, path=path: requests.update([path]))
                    await open_page(page, server.url, path, ready)
                await first.wait_for_timeout(1000)
                requests.clear()
                with_pages = await consul_requests(server, first)
    assert all(count <= IDLE_SECONDS for count in requests.values()), requests
    assert with_pages - idle <= 2, (idle, with_pages)


async def consul_requests(server: Server, page: Page) -> float:
    """Return the number of requests to Consul in some seconds."""
    before = await figures(server.url)
    await page.wait_for_timeout(1000 * IDLE_SECONDS)
    return sum((await figures(server.url)).since(before, "pyexec_consul_requests_total").values())
