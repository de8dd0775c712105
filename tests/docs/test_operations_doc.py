"""Check that docs/operations.md and docs/alerts.yml name all metrics of /metrics and no others."""

import re
from pathlib import Path

import pytest
import yaml

from pyexec.metrics import CATALOGUE
from tests.support.metrics import figures
from tests.support.server import Server

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text()
ROWS = re.findall(r"^\| `(pyexec_\w+)` \| (\w+) \| (.+?) \| (.+) \|$", PAGE, re.M)
RULES = [
    rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
NAMES = r"\b(?:pyexec|process)_\w+"
SUFFIXES = ("_bucket", "_count", "_sum")


def queryable_names() -> set[str]:
    """Return all names that Prometheus can query for the metrics of the catalogue."""
    names = set()
    for measure in CATALOGUE:
        kind = type(measure).__name__
        names |= {measure.name} if kind != "Histogram" else {f"{measure.name}{s}" for s in SUFFIXES}
    return names


def test_the_table_is_the_catalogue() -> None:
    expected = [
        (m.name, type(m).__name__.lower(), ", ".join(f"`{label}`" for label in m.labels) or "–", m.doc)
        for m in CATALOGUE
    ]
    assert expected == ROWS


async def test_a_server_exports_exactly_the_documented_metrics(server: Server) -> None:
    families = (await figures(server.url)).families
    (sentence,) = re.findall(r"metrics of its process: (.+?)\.\n", PAGE, re.DOTALL)
    of_the_process = set(re.findall(r"`(process_\w+)`", sentence))
    assert families == {name for name, *_ in ROWS} | of_the_process


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
async def test_each_alert_uses_existing_metrics_and_has_instructions(
    rule: dict[str, str], server: Server
) -> None:
    of_the_process = {name for name in (await figures(server.url)).families if name.startswith("process_")}
    asked = set(re.findall(NAMES, re.sub(r'"[^"]*"', "", rule["expr"])))
    assert asked
    assert asked <= queryable_names() | of_the_process
    for label, value in re.findall(r'(\w+)=~?"([^"]*)"', rule["expr"]):
        measure = next((m for m in CATALOGUE if m.name in rule["expr"]), None)
        if measure is not None:
            assert label in measure.labels, rule["expr"]
            if label in ("error_type", "result", "operation"):
                at = measure.labels.index(label)
                assert value in {values[at] for values in measure.known}
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["todo"].split()) > 5
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_queries_of_the_page_use_existing_metrics() -> None:
    for query in re.findall(r"```promql\n(.+?)```", PAGE, re.S):
        assert set(re.findall(NAMES, query)) <= queryable_names()
