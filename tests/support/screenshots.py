"""Take the screenshots of docs/console.md: `python -m tests.support.screenshots`, with the environment of the tests.

Two replicas on a Consul agent run some programs and a session. Then one of them is killed, so that the other one adopts
a program."""

import os
import tempfile
from io import BytesIO
from pathlib import Path

import anyio
from PIL import Image
from playwright.async_api import Page, expect

from tests.support.api import Api, api_of
from tests.support.browser import page_of
from tests.support.cluster import Cluster, running_cluster
from tests.support.console import outcome, run, run_cell
from tests.support.consul import durable_agent
from tests.support.images import docker, image_with_ipython, install_ipython, own_image
from tests.support.sessions import opened

FOLDER = Path("docs/console")
IMAGE = "python-ipython:3.12"
WIDTH, SCALE, COLOURS = 1060, 2, 192
BARS = """\
import time
from IPython.display import SVG

bars = [3, 5, 4, 8, 6]
for n, height in enumerate(bars):
    print("step", n + 1, "of", len(bars), flush=True)
    time.sleep(0.2)
display(SVG("<svg xmlns='http://www.w3.org/2000/svg' width='320' height='90'>" + "".join(
    f"<rect x='{n * 62}' y='{90 - h * 10}' width='50' height='{h * 10}' fill='#3d5afe'/>"
    for n, h in enumerate(bars)) + "</svg>"))
sum(bars)
"""
LINE = """\
from IPython.display import SVG
points = " ".join(f"{n * 30},{90 - v}" for n, v in enumerate(values))
SVG(f"<svg xmlns='http://www.w3.org/2000/svg' width='320' height='95'>"
    f"<polyline points='{points}' fill='none' stroke='#3d5afe' stroke-width='3'/></svg>")"""
CELLS = ["values = [n * n for n in range(10)]\nprint('squares:', values)", LINE, "sum(values)"]
LONG = (
    "import time\nfor n in range(24):\n    print('second', n, flush=True)\n    time.sleep(1)\nprint('done')"
)


async def take_all(directory: Path, image: str) -> None:
    settings = {"max_concurrent": "4", "default_memory_mb": "256", "default_disk_mb": "64", "warm_pool": "2"}
    with durable_agent(directory / "consul") as consul:
        async with running_cluster(directory, image, [consul], 2, **settings) as cluster:
            async with api_of(cluster.urls[1]) as api, page_of(cluster.urls[1], scale=SCALE) as (page, _):
                await page.set_viewport_size({"width": WIDTH, "height": 1000})
                await take_run(page, cluster.urls[1])
                await take_session(page, cluster.urls[1], api)
                await take_timeline(page, cluster, api)
            await cluster.stop()


async def take_run(page: Page, url: str) -> None:
    await page.goto(f"{url}/#/run")
    await run(page, BARS)
    await expect(outcome(page)).to_have_text("Finished.")
    await take(page, "run", 980)
    await page.set_viewport_size({"width": 390, "height": 844})
    await take(page, "phone", 844)
    await page.set_viewport_size({"width": WIDTH, "height": 1000})


async def take_session(page: Page, url: str, api: Api) -> None:
    async with opened(api) as session:
        await page.goto(f"{url}/#/sessions/{session.document['id']}")
        for number, code in enumerate(CELLS, 1):
            cell = await run_cell(page, number, code)
            await expect(outcome(cell)).to_have_text("Finished.")
        await page.evaluate("scrollTo(0, 0)")
        await take(page, "session", 1250)
        await page.goto(f"{url}/#/sessions")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await take(page, "sessions", 360)


async def take_timeline(page: Page, cluster: Cluster, api: Api) -> None:
    first, second = cluster.replicas
    async with api_of(first.url) as other:
        lost = await other.accepted(LONG)
        await other.until_printed(lost, b"second 2")
        for code in ("print(6 * 7)", "1 / 0", "raise SystemExit(3)", "import time; time.sleep(1)"):
            await other.run(code)
        await page.goto(f"{second.url}/#/cluster")
        await expect(page.locator(".card")).to_have_count(2)
        await take(page, "cluster", 620)
    await first.kill()
    await api.ended(lost)
    await page.goto(f"{second.url}/#/executions/{lost}")
    await expect(page.locator(".bar.running.lost")).to_be_visible()
    await expect(outcome(page)).to_have_text("Finished.")
    await take(page, "timeline", 760)
    await page.emulate_media(color_scheme="dark")
    await take(page, "timeline-dark", 760)
    await page.emulate_media(color_scheme="light")
    await page.goto(f"{second.url}/#/executions")
    await expect(page.locator("tbody tr").first).to_be_visible()
    await take(page, "executions", 560)


async def take(page: Page, name: str, height: int) -> None:
    """Write a screenshot as a small file: the pages have few colours."""
    await page.evaluate("document.activeElement.blur()")
    size = page.viewport_size
    assert size is not None
    await page.set_viewport_size({"width": size["width"], "height": height})
    taken = await page.screenshot(scale="device", animations="disabled")
    with Image.open(BytesIO(taken)) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).convert("RGB")
        small.save(FOLDER / f"{name}.webp", lossless=True, quality=100, method=6)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        own_image(os.environ["PYEXEC_TEST_IMAGE"]) as image,
        image_with_ipython(image, install_ipython(image, Path(folder))) as ready,
    ):
        docker("tag", ready, IMAGE)
        anyio.run(take_all, Path(folder), IMAGE)
        docker("rmi", IMAGE)


if __name__ == "__main__":
    main()
