"""A real browser, driven by Playwright. It can reach only the server."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, Route, async_playwright, expect

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
    """Start a browser. It serves the tests of one event loop."""
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        # Chromium's sandbox does not work as root; the pages come from this repository.
        browser = await playwright.chromium.launch(
            executable_path=executable(), args=["--no-sandbox"], timeout=PATIENCE_MS
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def page_of(
    url: str, *, browser: Browser | None = None, scale: float = 1
) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open a page, with `scale` device pixels to a pixel; yield it and a list of problems: errors of scripts and of the
    browser, and requests to other servers, which are aborted. Without `browser`, start one for this page."""
    if browser is None:
        async with running_browser() as own, page_of(url, browser=own, scale=scale) as opened:
            yield opened
        return
    wrong: list[str] = []

    async def refuse_elsewhere(route: Route) -> None:
        if route.request.url.startswith(url):
            await route.continue_()
        else:
            wrong.append(f"asks for {route.request.url}")
            await route.abort()

    async with await browser.new_context(device_scale_factor=scale) as context:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        await page.route("**/*", refuse_elsewhere)
        yield page, wrong
