"""The console in a browser: first paint, bytes, and the longest task while it shows long lists and long output."""

import asyncio
import statistics
import tempfile
from pathlib import Path

from playwright.async_api import Page

from benchmarks.log_size import SETTINGS
from benchmarks.prefilled_logs import OPENERS, fill
from benchmarks.report import Measurement, Section
from tests.support.browser import page_of
from tests.support.server import running_server

ROUNDS = 10
EXECUTIONS = 1000
OUTPUTS = {
    "many lines": "print('y\\n' * 5_000_000); print('the end')",
    "one line": "print('x' * 9_999_000); print('the end')",
    "colours": "print('\\x1b[31mred\\x1b[0m plain ' * 500_000); print('the end')",
    "live": "import time\nfor n in range(1000): print('line of a log', 9900 * 'z', flush=True); time.sleep(0.01)\n"
    "print('the end')",
}
_OBSERVE = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({ type: "longtask", buffered: true });
"""
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_TRANSFERRED = """
[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .reduce((sum, entry) => sum + entry.transferSize, 0)
"""


def measure_console(image: str) -> Section:
    """Measure the page with Chromium on loopback. Takes about half a minute."""
    with tempfile.TemporaryDirectory(prefix="pyexec-bench-") as directory:
        data_dir = Path(directory) / "data"
        asyncio.run(fill(OPENERS["embedded"](data_dir, None), EXECUTIONS))
        settings = {**SETTINGS, "warm_pool": "1", "local_claim": "on"}
        with running_server(data_dir, image, **settings) as server:
            measurements = asyncio.run(_measure(server.url))
    return Section(title="The console in a browser", samples={}, measurements=measurements)


async def _measure(url: str) -> list[Measurement]:
    async with page_of(url) as (page, _wrong):
        paints = [await _first_paint(page, url) for _ in range(ROUNDS)]
        transferred = await page.evaluate(_TRANSFERRED)
    async with page_of(url) as (page, _wrong):
        listing = await _scroll(page, url)
    async with page_of(url) as (page, _wrong):
        outputs = {kind: await _print(page, url, code) for kind, code in OUTPUTS.items()}
    return [
        Measurement(name="first paint of /, median", value=statistics.median(paints), unit="ms", at_most=300),
        Measurement(name="transferred for /", value=transferred / 1000, unit="KB", at_most=250),
        Measurement(
            name=f"longest task while {EXECUTIONS:,} executions are scrolled",
            value=listing,
            unit="ms",
            at_most=50,
        ),
        *(
            Measurement(
                name=f"longest task while a program prints 10 MB, {kind}", value=value, unit="ms", at_most=50
            )
            for kind, value in outputs.items()
        ),
    ]


async def _first_paint(page: Page, url: str) -> float:
    """Open the page without its files in the cache, and return the milliseconds to its first paint."""
    session = await page.context.new_cdp_session(page)
    await session.send("Network.clearBrowserCache")
    await page.goto("about:blank")
    await _open(page, url)
    milliseconds: float = await page.evaluate(_FIRST_PAINT)
    return milliseconds


async def _open(page: Page, url: str) -> None:
    await page.goto(url)
    await page.locator(".prism-code-editor").wait_for()


async def _scroll(page: Page, url: str) -> float:
    """Scroll the list to its end, page by page, and return the longest task in milliseconds."""
    await page.goto(f"{url}/#/executions")
    await page.locator("tbody tr").first.wait_for()
    await page.evaluate(_OBSERVE)
    while await page.locator("tbody tr").count() < EXECUTIONS:
        await page.mouse.wheel(0, 1500)
        await page.wait_for_timeout(50)
    longest: float = await page.evaluate("window.longest")
    return longest


async def _print(page: Page, url: str, code: str) -> float:
    """Run a program with long output, and return the longest task in milliseconds."""
    await page.goto("about:blank")
    await _open(page, url)
    await page.locator("textarea.pce-textarea").fill(code)
    await page.evaluate(_OBSERVE)
    await page.keyboard.press("Control+Enter")
    await page.get_by_role("log").get_by_text("the end").wait_for()
    await page.locator(".badge.completed").wait_for()
    longest: float = await page.evaluate("window.longest")
    return longest
