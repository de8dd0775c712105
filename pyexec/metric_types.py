"""The kinds of metrics: counters, gauges and histograms."""

from typing import Final

from attrs import frozen

DURATIONS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0),
)
"""Buckets in seconds, from a short run with an idle sandbox to a run of several hours."""


@frozen(kw_only=True, eq=False)
class Metric:
    """The name, help text and labels of a metric.

    `known` are label values that are exported as 0 from the start; without them, Prometheus would not see the first
    increase."""

    name: str
    doc: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()


@frozen(kw_only=True, eq=False)
class Counter(Metric):
    """A metric that only grows."""


@frozen(kw_only=True, eq=False)
class Gauge(Metric):
    """A metric that is read each time the metrics are collected."""


@frozen(kw_only=True, eq=False)
class Histogram(Metric):
    """A metric that counts for each of `buckets` how many values were at most that large."""

    buckets: tuple[float, ...] = DURATIONS
