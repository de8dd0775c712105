"""Read a server's metrics as Prometheus does."""

from collections.abc import Callable, Mapping

import aiohttp
import anyio
from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families

from tests.support.api import pause

PATIENCE_SECONDS = 120

Key = tuple[str, frozenset[tuple[str, str]]]


@frozen
class Figures:
    """All samples of one scrape."""

    samples: Mapping[Key, float]
    families: frozenset[str]
    """The names of the metrics, as their HELP lines have them."""

    def __call__(self, name: str, **labels: str) -> float:
        """Return one sample; 0 if it does not exist."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def since(self, before: "Figures", prefix: str) -> Mapping[Key, float]:
        """Return the changes since `before`, of samples whose names begin with `prefix`."""
        return {
            key: value - before.samples.get(key, 0.0)
            for key, value in self.samples.items()
            if key[0].startswith(prefix) and value != before.samples.get(key, 0.0)
        }


def parse(text: str) -> Figures:
    families = list(text_string_to_metric_families(text))
    return Figures(
        samples={(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples},
        families=frozenset(line.split()[2] for line in text.splitlines() if line.startswith("# HELP")),
    )


async def until_figures(url: str, wanted: Callable[[Figures], bool], token: str | None = None) -> Figures:
    """Scrape the metrics until `wanted` returns True for them; return them."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while not wanted(found := await figures(url, token)):
            await pause()
    return found


async def figures(url: str, token: str | None = None) -> Figures:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parse(await answer.text())
