"""Check that docs/operations.md, docs/alerts.yml and docs/grafana.json use the metrics of /metrics and no others."""

import json
import re
from collections.abc import Collection, Sequence

import pytest
import yaml

from pyexec.metrics import CATALOGUE, Metric
from tests.support.metrics import figures
from tests.support.paths import ROOT
from tests.support.server import Server

DOCS = ROOT / "docs"
PAGE = (DOCS / "operations.md").read_text()
ROWS = re.findall(r"^\| `(pyexec_\w+)` \| (\w+) \| (.+?) \| (.+) \|$", PAGE, re.M)
RULES = [
    rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
CHOSEN = 'job=~"$job", instance=~"$instance"'
NAMES = r"\b(?:pyexec|process)_\w+"
SUFFIXES = ("_bucket", "_count", "_sum")


SELECTOR = re.compile(r"\b((?:pyexec|process)_\w+)(?:\{([^{}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
OF_A_TARGET = {"job", "instance"}
"""Labels that Prometheus itself adds."""


def queryable_names() -> dict[str, Metric]:
    """Return all names that Prometheus can query for the metrics of the catalogue."""
    names: dict[str, Metric] = {}
    for measure in CATALOGUE:
        kind = type(measure).__name__
        of_measure = [measure.name] if kind != "Histogram" else [f"{measure.name}{s}" for s in SUFFIXES]
        names |= dict.fromkeys(of_measure, measure)
    return names


def check_query(query: str, families: Collection[str]) -> set[str]:
    """Check that a query uses only existing metrics, their labels and known values; return the labels that it keeps."""
    selectors = SELECTOR.findall(re.sub(r"label_values\((.*), \w+\)", r"\1", query))
    assert selectors, query
    labels = set(OF_A_TARGET)
    for name, matchers in selectors:
        if name.startswith("process_"):
            assert name in families, query
            measure = None
        else:
            measure = queryable_names()[name]
            assert measure.name in families, query
            labels |= set(measure.labels) | ({"le"} if name.endswith("_bucket") else set())
        for label, operator, value in MATCHER.findall(matchers):
            if label not in OF_A_TARGET:
                assert measure is not None, query
                assert label in measure.labels, query
                check_value(measure, label, value.split("|") if operator == "=~" else [value])
    kept = {label for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(", ")}
    assert kept <= labels, query
    return kept or labels


def check_value(measure: Metric, label: str, values: Sequence[str]) -> None:
    """Check values of a label whose values are known from the start."""
    if measure.known:
        known = {each[measure.labels.index(label)] for each in measure.known}
        assert set(values) <= known, (measure.name, label)


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
    check_query(rule["expr"], (await figures(server.url)).families)
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["todo"].split()) > 5
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_queries_of_the_page_use_existing_metrics() -> None:
    for query in re.findall(r"```promql\n(.+?)```", PAGE, re.S):
        assert set(re.findall(NAMES, query)) <= queryable_names().keys()


async def test_each_query_of_the_dashboard_uses_existing_metrics_and_labels(server: Server) -> None:
    families = (await figures(server.url)).families
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            check_query(variable["query"], families)
    for panel in PANELS:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            kept = check_query(target["expr"], families)
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, target
            selectors = SELECTOR.findall(target["expr"])
            assert all(CHOSEN in matchers for _, matchers in selectors), target


def test_the_dashboard_is_consistent() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?(?!__)(\w+)", text)) == names
    places = [
        (x, y)
        for at in (panel["gridPos"] for panel in every)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24


def test_the_dashboard_shows_all_metrics_that_an_alert_uses() -> None:
    shown = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name, _ in SELECTOR.findall(target["expr"])
    }
    alerts = {name for rule in RULES for name, _ in SELECTOR.findall(rule["expr"])}
    assert alerts - shown == {"pyexec_queue_limit", "process_start_time_seconds"}
