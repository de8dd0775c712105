"""The console in a browser: open it, write programs, and read what it shows."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Locator, Page, expect

from tests.support.browser import page_of

EXPECTED = re.compile("Content Security Policy directive|Failed to load resource")
"""Chromium reports what the policy blocks, and error responses: these are no problems."""
EVIL = "document.title = 'evil'"
HOSTILE = f"""
import sys
print("</pre><script>{EVIL}</script><img src=x onerror=\\"{EVIL}\\">")
print("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07plain \\x1b[2Jkept")
print("user\\u202etxt.exe\\u202c \\u05d0\\u05d1 \\x00 end")
print("10 %\\r20 %\\r\\n", end="")
print("to stderr", file=sys.stderr)
"""
_HTML = (
    f"<style>b {{ color: rgb(1, 2, 3) }}</style><b style='font-size: 31px' onclick=\"{EVIL}\">bold</b>"
    f'<script>{EVIL}; parent.{EVIL}</script><img src=x onerror="parent.{EVIL}">'
)
_SVG = f"<svg xmlns='http://www.w3.org/2000/svg' width='90' height='70' onload=\"{EVIL}\"><text>drawn</text></svg>"
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_BUNDLES: list[Mapping[str, str]] = [
    {"text/html": _HTML},
    {"image/svg+xml": _SVG},
    {"image/png": _PNG},
    {"application/javascript": EVIL},
]
HOSTILE_DISPLAYS = "\n".join(f"display({bundle!r}, raw=True)" for bundle in _BUNDLES)


@asynccontextmanager
async def console(browser: Browser, url: str, path: str = "/") -> AsyncIterator[tuple[Page, list[str]]]:
    """Open the console; yield the page and a list of problems, which must be empty at the end."""
    async with page_of(url, browser=browser) as (page, wrong):
        await page.goto(f"{url}{path}")
        try:
            yield page, wrong
        except Exception as error:
            error.add_note(f"problems of the page: {wrong}; its text: {await page.inner_text('body')}")
            raise
        assert [problem for problem in wrong if not EXPECTED.search(problem)] == []


async def write(page: Page, code: str, label: str = "Program") -> None:
    """Replace the text in the editor, or in the text area that stays if the editor cannot be loaded: Chromium may abort
    requests while the engine changes the machine's networks."""
    await page.get_by_role("form", name=label).locator("textarea").first.fill(code)


async def run(page: Page, code: str) -> None:
    await write(page, code)
    await page.keyboard.press("Control+Enter")


async def run_cell(page: Page, number: int, code: str) -> Locator:
    """Run a cell with the keyboard; return it."""
    await write(page, code, "Cell")
    await page.keyboard.press("Shift+Enter")
    return page.get_by_role("article", name=f"Cell {number}", exact=True)


def outcome(scope: Page | Locator) -> Locator:
    return scope.locator(".headline strong")


async def check_hostile_output(page: Page, log: Locator) -> None:
    """Check what the page shows of `HOSTILE`."""
    await expect(log).to_contain_text(f"</pre><script>{EVIL}</script>")
    await expect(log.locator(".ansi-red")).to_have_text("red")
    await expect(log).to_contain_text("red plain kept")
    await expect(log).to_contain_text("userU+202Etxt.exeU+202C")
    await expect(log).to_contain_text("␀ end\n20 %\n")
    await expect(log.locator(".stderr")).to_have_text("to stderr\n")
    assert await log.locator("script, img").count() == 0
    assert await page.title() != "evil"


async def check_hostile_displays(page: Page) -> None:
    """Check what the page shows of `HOSTILE_DISPLAYS`."""
    await expect(page.locator("figure")).to_have_count(len(_BUNDLES))
    first, second = page.locator("iframe").first, page.locator("iframe").last
    assert [await frame.get_attribute("sandbox") for frame in (first, second)] == ["", ""]
    bold = first.content_frame.locator("b")
    await expect(bold).to_have_css("color", "rgb(1, 2, 3)")
    await expect(bold).to_have_css("font-size", "31px")
    await expect(second.content_frame.locator("svg")).to_contain_text("drawn")
    decoded = "image => image.decode().then(() => image.naturalWidth)"
    assert await page.locator("figure > img").evaluate(decoded) == 1
    assert await page.title() != "evil"
