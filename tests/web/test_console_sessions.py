"""Test the session pages of the console in a real browser: open, cells, reload, interrupt, restart, close, lost."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.support.api import api_of
from tests.support.console import (
    HOSTILE,
    HOSTILE_DISPLAYS,
    check_hostile_displays,
    check_hostile_output,
    console,
    outcome,
    run_cell,
    write,
)
from tests.support.containers import containers, deployment_of, remove
from tests.support.server import Server, running_server
from tests.support.sessions import Session, opened
from tests.support.tenants import as_token, tenants_file

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = "import time\nprint('on', flush=True)\ntime.sleep(600)"


@pytest.fixture(scope="module")
def server(session_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server whose sessions need no setup."""
    with running_server(tmp_path_factory.mktemp("sessions") / "data", session_image) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def session(server: Server) -> AsyncIterator[Session]:
    async with api_of(server.url) as api, opened(api) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, server: Server, session: Session) -> AsyncIterator[Page]:
    """Open the page of a session."""
    async with console(browser, server.url, f"/#/sessions/{session.document['id']}") as (page, _):
        yield page


async def confirm(page: Page, button: str, answer: str) -> None:
    await page.get_by_role("button", name=button, exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name=answer).click()


async def test_a_session_is_opened_used_reloaded_and_closed(browser: Browser, server: Server) -> None:
    async with console(browser, server.url, "/#/sessions") as (page, _):
        await page.get_by_role("button", name="Open a session").click()
        first = await run_cell(page, 1, "x = 6 * 7\nprint('told')")
        await expect(first.get_by_role("log")).to_have_text("told\n")
        second = await run_cell(page, 2, "display(x)\nx + 1")
        await expect(second.locator(".value pre")).to_have_text("43")
        await expect(second.locator("figure pre")).to_have_text("42")
        await write(page, "not run yet", "Cell")
        await page.reload()
        await expect(first.locator(".source")).to_have_text("x = 6 * 7\nprint('told')")
        await expect(first.get_by_role("log")).to_have_text("told\n")
        await expect(second.locator(".value pre")).to_have_text("43")
        await expect(second.locator("figure pre")).to_have_text("42")
        await expect(page.locator("textarea.pce-textarea")).to_have_value("not run yet")
        await second.get_by_role("button", name="Edit").click()
        await expect(page.locator("textarea.pce-textarea")).to_have_value("display(x)\nx + 1")
        await confirm(page, "Close", "Cancel")
        await confirm(page, "Close", "Close the session")
        await expect(outcome(page).first).to_have_text("Closed by a client.")
        await expect(page.get_by_role("button", name="Run")).to_be_disabled()
        await page.get_by_role("link", name="Sessions", exact=True).first.click()
        await expect(page.locator("tbody tr").first).to_contain_text("Closed by a client.")


async def test_cells_wait_and_are_interrupted_and_the_interpreter_is_restarted(page: Page) -> None:
    running = await run_cell(page, 1, f"x = 1\n{ENDLESS}")
    await expect(running.get_by_role("log")).to_have_text("on\n")
    for number in range(2, 9):  # more than a browser opens connections
        await run_cell(page, number, f"x + {number}")
    await expect(page.get_by_text("7 cells waiting")).to_be_visible()
    await page.get_by_role("button", name="Interrupt").click()
    await expect(outcome(running)).to_contain_text("Ended with KeyboardInterrupt")
    await expect(running.locator(".notice.error")).to_have_count(0)  # there is no message besides the type
    await expect(page.get_by_role("article", name="Cell 8").locator(".value pre")).to_have_text("9")
    await confirm(page, "Restart", "Restart")
    await expect(page.get_by_text("interpreter restarted 1 time")).to_be_visible()
    after = await run_cell(page, 9, "x")
    await expect(outcome(after)).to_contain_text("Ended with NameError")


async def test_cells_that_others_send_are_listed(page: Page, session: Session) -> None:
    await session.result("print('from elsewhere')")
    cell = page.get_by_role("article", name="Cell 1")
    await expect(cell.get_by_role("log")).to_have_text("from elsewhere\n")
    await expect(cell).to_contain_text("The server does not keep it.")
    await session.api.request("DELETE", session.path)
    await run_cell(page, 2, "1")
    await expect(page.get_by_role("alert")).to_contain_text("is closed (deleted)")


async def test_the_output_of_cells_is_text_and_displays_run_nothing(page: Page) -> None:
    cell = await run_cell(page, 1, HOSTILE)
    await expect(outcome(cell)).to_have_text("Finished.")
    await check_hostile_output(page, cell.get_by_role("log"))
    await run_cell(page, 2, HOSTILE_DISPLAYS)
    await check_hostile_displays(page)
    long = await run_cell(page, 3, "print('x' * 9_000_000)\nprint('the end')")
    await expect(long.get_by_role("log")).to_contain_text("the end")
    assert await long.get_by_role("log").evaluate("log => log.textContent.length") < 300_000


async def test_tokens_other_tenants_and_a_lost_session(
    browser: Browser, session_image: str, tmp_path: Path
) -> None:
    settings = {"tenants_file": tenants_file(tmp_path), "warm_pool": "0"}
    with running_server(tmp_path / "data", session_image, **settings) as guarded:
        async with console(browser, guarded.url, "/#/sessions") as (page, _):
            await page.get_by_role("textbox", name="Token").fill("token-a")
            await page.get_by_role("button", name="Continue").click()
            await page.get_by_role("button", name="Open a session").click()
            cell = await run_cell(page, 1, ENDLESS)
            await expect(cell.get_by_role("log")).to_have_text("on\n")
            await page.reload()
            await expect(cell.get_by_role("log")).to_have_text("on\n")
            async with console(browser, guarded.url, page.url.removeprefix(guarded.url)) as (other, _):
                await other.get_by_role("textbox", name="Token").fill("token-b")
                await other.get_by_role("button", name="Continue").click()
                await expect(other.get_by_role("alert")).to_contain_text("does not exist")
                await expect(other.get_by_role("form")).to_be_hidden()
            for container in await containers(deployment_of(guarded.data_dir)):
                await remove(container)
            await expect(outcome(page).first).to_have_text("Lost: its container or its machine is gone.")
            await expect(outcome(cell)).to_contain_text("Lost")
        async with api_of(guarded.url, headers=as_token("token-a")) as api:
            assert (await api.get("/api/v1/sessions")).document["sessions"][0]["close_reason"] == "lost"
