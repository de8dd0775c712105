"""Test the console in a real browser, as a person uses it: write, run, watch, stop, reload, read the timeline."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from tests.support.browser import page_of
from tests.support.console import (
    HOSTILE,
    HOSTILE_DISPLAYS,
    check_hostile_displays,
    check_hostile_output,
    console,
    outcome,
    run,
    write,
)
from tests.support.server import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "a-token-of-the-console"
TRANSFERRED_MAX = 250_000
KEPT_MAX = 300_000
OBSERVE = """
window.parsed = 0;
const parse = JSON.parse;
JSON.parse = (text, ...rest) => {
  window.parsed = Math.max(window.parsed, text.length);
  return parse(text, ...rest);
};
window.skipped = new Set();
addEventListener("contentvisibilityautostatechange", ({ target, skipped }) => {
  if (skipped) window.skipped.add(target);
  else window.skipped.delete(target);
}, true);
"""
LAID_OUT = "log => [...log.querySelectorAll('.text > div')].filter((block) => !skipped.has(block)).length"


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    async with console(browser, server.url) as (page, _):
        yield page


async def test_a_program_is_written_run_and_watched(page: Page) -> None:
    await run(page, "print('first', flush=True)\nname = input()\nprint('second', name)\n6 * 7")
    await expect(outcome(page)).to_have_text("Ended with EOFError in line 2.")
    await page.get_by_role("tab", name="Input").click()
    await page.get_by_role("textbox", name="Input").fill("typed in")
    await page.get_by_role("button", name="Run").click()
    await expect(outcome(page)).to_have_text("Finished.")
    await expect(page.get_by_role("log")).to_have_text("first\nsecond typed in\n")
    await expect(page.locator(".value pre")).to_have_text("42")
    await expect(page.locator(".facts")).to_contain_text("Exit code0")


async def test_a_run_is_stopped_and_survives_a_reload(page: Page) -> None:
    await run(page, "import time\nprint('started', flush=True)\ntime.sleep(600)")
    await expect(page.get_by_role("log")).to_have_text("started\n")
    await page.reload()
    await expect(page.get_by_role("log")).to_have_text("started\n")
    await expect(page.locator("textarea.pce-textarea")).to_have_value(
        "import time\nprint('started', flush=True)\ntime.sleep(600)"
    )
    await page.get_by_role("button", name="Stop").click()
    await expect(outcome(page)).to_have_text("Stopped by a kill request.")


async def test_a_program_that_waits_for_a_slot_is_stopped(page: Page) -> None:
    await page.route("**/api/v1/eval", lambda _: None)  # no answer, as long as the request waits
    await run(page, "print('never')")
    async with page.expect_event("requestfailed"):
        await page.get_by_role("button", name="Stop").click()
    await expect(outcome(page)).to_have_text("Stopped before it began.")
    await page.unroute("**/api/v1/eval")
    await run(page, "print('later')")
    await expect(page.get_by_role("log")).to_have_text("later\n")


def answering(*answers: dict[str, Any]) -> Callable[[Route], Awaitable[None]]:
    """Return a handler that gives the answers to the first requests, and lets the server answer the others."""
    left = list(answers)

    async def answer(route: Route) -> None:
        await (route.fulfill(**left.pop(0)) if left else route.continue_())

    return answer


async def test_a_lost_connection_is_shown_until_it_is_back(page: Page) -> None:
    """The stream breaks while the program prints nothing, and a proxy answers for a server that restarts."""
    await run(page, "import time\nprint('started', flush=True)\ntime.sleep(600)")
    await expect(page.get_by_role("log")).to_have_text("started\n")
    link = page.get_by_role("link", name="Open the execution")
    execution = str(await link.get_attribute("href")).rpartition("/")[2]
    running = json.dumps({"execution_id": execution, "at": "2026-01-01T00:00:00Z"})
    first = f"id: 3.0\nevent: running\ndata: {running}\n\n"
    for open_page in (page.reload, link.click):
        await page.route(
            "**/events", answering({"content_type": "text/event-stream", "body": first}, {"status": 502})
        )
        await open_page()
        await expect(outcome(page)).to_have_text("Connection lost; retrying")
        await expect(page.get_by_role("log")).to_have_text("started\n")
        await expect(outcome(page)).to_have_text(re.compile("^Running"))
        await page.unroute("**/events")
    await page.get_by_role("button", name="Stop").click()
    await expect(outcome(page)).to_have_text("Stopped by a kill request.")


async def test_a_tab_does_not_overwrite_what_was_written_in_another_one(
    browser: Browser, server: Server
) -> None:
    async with console(browser, server.url) as (page, _):
        other = await page.context.new_page()
        await other.goto(server.url)
        await write(other, "print('newer')")
        while "newer" not in await other.evaluate("localStorage.getItem('pyexec.draft') ?? ''"):
            await other.wait_for_timeout(50)
        await other.close()
        await page.reload()
        await expect(page.locator("textarea.pce-textarea")).to_have_value("print('newer')")


async def test_the_page_of_an_execution_shows_its_timeline_files_and_source(page: Page) -> None:
    await page.get_by_role("tab", name="Files").click()
    await page.get_by_role("textbox", name="Files").fill("*.txt")
    await run(page, "open('note.txt', 'w').write('kept')")
    await page.get_by_role("link", name="Open the execution").click()
    await expect(page.get_by_role("img", name="Timeline: Queued")).to_have_attribute(
        "aria-label", re.compile(r"Queued \d+ ms, Claimed .*, Running .*; Finished\.$")
    )
    await page.get_by_text("All events").click()
    await expect(page.locator(".timeline tbody th").last).to_have_text("Finished")
    await expect(page.locator(".source")).to_have_text("open('note.txt', 'w').write('kept')")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download note.txt").click()
    assert (await (await download.value).path()).read_text() == "kept"
    await page.reload()
    await expect(outcome(page)).to_have_text("Finished.")
    await page.get_by_role("button", name="Edit and run again").click()
    await expect(page.locator("textarea.pce-textarea")).to_have_value("open('note.txt', 'w').write('kept')")


async def test_the_list_is_live_and_filtered(browser: Browser, server: Server, page: Page) -> None:
    await page.get_by_role("link", name="Executions").click()
    async with console(browser, server.url) as (other, _):
        await run(other, "import time; time.sleep(600)")
        row = page.locator("tbody tr").filter(has=page.locator(".badge.running")).first
        await expect(row).to_contain_text("Running.")
        name = await row.get_by_role("link").get_attribute("aria-label")
        await other.get_by_role("button", name="Stop").click()
        await expect(page.locator("tbody tr").filter(has=page.get_by_label(name))).to_contain_text("killed")
    await page.get_by_label("Status").select_option("killed")
    await expect(page.locator("tbody .badge.killed").first).to_be_visible()
    await expect(page.locator("tbody .badge:not(.killed)")).to_have_count(0)
    await page.get_by_label(name).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(name.split()[1])


async def test_output_is_text(page: Page) -> None:
    await run(page, HOSTILE)
    await expect(outcome(page)).to_have_text("Finished.")
    await check_hostile_output(page, page.get_by_role("log"))


async def test_long_output_leaves_the_page_small(page: Page) -> None:
    """The program prints one line of 9 MB, and then many short ones. The browser parses no long text, and lays out
    only what is in sight."""
    await page.evaluate(OBSERVE)
    await run(page, "print('x' * 9_000_000); print('y\\n' * 400_000); print('the end')")
    log = page.get_by_role("log")
    await expect(log).to_contain_text("the end")
    await expect(page.get_by_text("This page shows the end of the output.")).to_be_visible()
    assert await log.evaluate("log => log.textContent.length") < KEPT_MAX
    assert await log.evaluate("log => log.querySelectorAll('*').length") < 1000
    assert await log.evaluate(LAID_OUT) < 10
    assert await log.evaluate("log => log.scrollTop + log.clientHeight > log.scrollHeight - 8")
    assert await page.evaluate("window.parsed") < KEPT_MAX
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Save as file").click()
    assert (await (await download.value).path()).stat().st_size == 9_000_001 + 800_001 + 8


@pytest.mark.full
async def test_a_progress_bar_leaves_the_output_before_it(page: Page) -> None:
    """The line is rewritten with more characters than the page keeps. Control characters need few elements."""
    await run(
        page, "print('first'); print('\\0' * 300_000); print(*(f'{n:>60}' for n in range(9000)), sep='\\r')"
    )
    log = page.get_by_role("log")
    await expect(outcome(page)).to_have_text("Finished.")
    await expect(log).to_contain_text("␀\n" + 56 * " " + "8999\n")
    assert await log.evaluate("log => log.querySelectorAll('*').length") < 20_000
    await run(page, "print('first'); print(*(f'{n:>60}' for n in range(9000)), sep='\\r')")
    await expect(log).to_have_text("first\n" + 56 * " " + "8999\n")


@pytest.mark.full
async def test_displays_are_shown_and_run_nothing(page: Page) -> None:
    await run(page, HOSTILE_DISPLAYS)
    await check_hostile_displays(page)


async def test_a_rejected_option_is_pointed_out(page: Page) -> None:
    await page.get_by_role("tab", name="Limits").click()
    memory = page.get_by_label("Memory")
    await expect(page.locator("#hint-memory_mb")).to_contain_text("default 1,024, at most 32,768")
    await memory.fill("1")
    await page.get_by_role("tab", name="Requirements").click()
    await run(page, "1")
    await expect(page.get_by_role("alert")).to_contain_text("config.memory_mb must be at least 16")
    await expect(memory).to_be_focused()


async def test_a_limit_that_is_no_number_is_rejected_and_not_ignored(page: Page) -> None:
    await page.get_by_role("tab", name="Limits").click()
    seconds = page.locator("#limit-timeout_seconds")
    await seconds.press_sequentially("30s")
    await run(page, "1")
    await expect(page.get_by_role("alert")).to_contain_text("config.timeout_seconds must be a number")
    await expect(seconds).to_have_value("30s")
    await seconds.fill("1e-9e")
    await run(page, "1")
    await expect(page.get_by_role("alert")).to_contain_text("config.timeout_seconds must be a number")


async def test_the_page_is_small_and_strict(browser: Browser, server: Server) -> None:
    async with page_of(server.url, browser=browser) as (page, wrong):
        response = await page.goto(f"{server.url}/")
        policy = response.headers["content-security-policy"]
        await page.locator(".prism-code-editor").wait_for()
        sizes = await page.evaluate(
            "performance.getEntriesByType('resource').map(entry => entry.transferSize)"
        )
        assert sum(sizes) + len(await response.body()) < TRANSFERRED_MAX
        assert "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-" in policy
        assert "unsafe" not in policy
        assert wrong == []


async def test_without_the_editor_a_text_area_works(browser: Browser, server: Server) -> None:
    async with page_of(server.url, browser=browser) as (page, _):
        await page.route("**/console/editor/**", lambda route: route.abort())
        await page.goto(f"{server.url}/")
        await page.locator("textarea.code").fill("print('plain')")
        await page.get_by_role("button", name="Run").click()
        await expect(page.get_by_role("log")).to_have_text("plain\n")


async def test_the_page_asks_once_for_a_token(browser: Browser, image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, api_tokens=TOKEN) as guarded:
        async with page_of(guarded.url, browser=browser) as (page, _):
            urls = []
            page.on("request", lambda request: urls.append(request.url))
            await page.goto(f"{guarded.url}/")
            await run(page, "print('with a token')")
            for given in ("wrong", TOKEN):
                await expect(page.locator(".run-state")).to_contain_text("Waiting for the API token")
                await page.get_by_role("textbox", name="Token").fill(given)
                await page.get_by_role("button", name="Continue").click()
            await expect(page.get_by_role("log")).to_have_text("with a token\n")
            await page.get_by_role("link", name="Executions").click()
            await expect(page.locator("tbody tr")).to_have_count(1)
            await page.reload()
            await expect(page.locator("tbody tr")).to_have_count(1)
            assert not any(TOKEN in url for url in urls)
            assert TOKEN not in json.dumps(await page.evaluate("Object.entries(localStorage)"))
