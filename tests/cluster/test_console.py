"""Follow a program in the console of one replica while the replica that runs it is killed."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.cluster.conftest import OpenScene
from tests.support.api import api_of, form, parse_events
from tests.support.archives import script
from tests.support.browser import page_of
from tests.support.consul import durable_agent

pytestmark = [pytest.mark.independent, pytest.mark.full]


async def test_the_timeline_of_a_run_that_is_adopted_after_a_crash(scene: OpenScene, tmp_path: Path) -> None:
    code = "import time\nprint('on', flush=True)\ntime.sleep(25)\nprint('end')"
    with durable_agent(tmp_path / "consul") as consul:
        async with scene([consul], size=2) as s:
            first, second = s.cluster.replicas
            async with api_of(first.url) as api, page_of(second.url) as (page, _):
                headers = {"Accept": "text/event-stream"}
                body = form(script(code))
                async with api.session.post("/api/v1/exec/sync", data=body, headers=headers) as stream:
                    execution_id = (await anext(parse_events(stream))).data["execution_id"]
                    await page.goto(f"{second.url}/#/executions/{execution_id}")
                    await expect(page.get_by_role("log")).to_have_text("on\n")
                    await first.kill()
                await expect(page.locator(".mark.adopted")).to_be_visible(timeout=60_000)
                await expect(page.locator(".bar.running.lost")).to_be_visible()
                await expect(page.locator(".headline strong")).to_have_text("Finished.", timeout=60_000)
                await expect(page.get_by_role("log")).to_have_text("on\nend\n")
                await expect(page.get_by_role("img", name="Adopted")).to_be_visible()
            await s.cluster.stop()
