"""A real browser, driven by Playwright. It can reach only the server."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, Route, async_playwright

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
PATIENCE_MS = 120_000


def executable() -> str:
    """Return the path of an installed browser."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("there is no Chromium on PATH; `make test` installs one")
    return found


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Run a browser. Several tests can open their pages in it if they share an event loop."""
    async with async_playwright() as playwright:
        # Chromium's sandbox does not work as root; the page comes from this repository.
        browser = await playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def page_of(url: str, *, scale: float = 1) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open a page as `page_in` does, in a browser of its own."""
    async with running_browser() as browser, page_in(browser, url, scale=scale) as opened:
        yield opened


@asynccontextmanager
async def page_in(browser: Browser, url: str, *, scale: float = 1) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open a page, with `scale` device pixels to a pixel; yield it and a list of problems: errors of scripts and of the
    browser, and requests to other servers, which are aborted."""
    wrong: list[str] = []

    async def refuse_elsewhere(route: Route) -> None:
        if route.request.url.startswith(url):
            await route.continue_()
        else:
            wrong.append(f"asks for {route.request.url}")
            await route.abort()

    page = await browser.new_page(device_scale_factor=scale)  # in a context of its own, without stored data
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    await page.route("**/*", refuse_elsewhere)
    yield page, wrong
    await page.close()
