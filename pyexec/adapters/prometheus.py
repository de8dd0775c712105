"""Metrics in the text format of Prometheus."""

from collections.abc import Callable

import prometheus_client as prometheus

from pyexec.metric_types import Counter, Gauge, Histogram
from pyexec.metrics import CATALOGUE

# The library would add a line with the creation time to each series.
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]


class PrometheusMeter:
    """`metrics.Meter` on its own Prometheus registry, which also has the metrics of the process."""

    content_type = prometheus.CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._counters = {m: self._counter(m) for m in CATALOGUE if isinstance(m, Counter)}
        self._gauges = {m: self._gauge(m) for m in CATALOGUE if isinstance(m, Gauge)}
        self._histograms = {m: self._histogram(m) for m in CATALOGUE if isinstance(m, Histogram)}
        # Caches of the series: looking one up in the library takes longer than counting.
        self._counter_series: dict[tuple[Counter, tuple[str, ...]], prometheus.Counter] = {}
        self._histogram_series: dict[tuple[Histogram, tuple[str, ...]], prometheus.Histogram] = {}

    def count(self, metric: Counter, *labels: str, by: float = 1) -> None:
        series = self._counter_series.get((metric, labels))
        if series is None:
            family = self._counters[metric]
            series = self._counter_series[metric, labels] = family.labels(*labels) if labels else family
        series.inc(by)

    def observe(self, metric: Histogram, value: float, *labels: str) -> None:
        series = self._histogram_series.get((metric, labels))
        if series is None:
            family = self._histograms[metric]
            series = self._histogram_series[metric, labels] = family.labels(*labels) if labels else family
        series.observe(value)

    def watch(self, metric: Gauge, read: Callable[[], float], *labels: str) -> None:
        family = self._gauges[metric]
        (family.labels(*labels) if labels else family).set_function(read)

    def exposition(self) -> bytes:
        """Return the current values of all metrics."""
        return prometheus.generate_latest(self._registry)

    def _counter(self, metric: Counter) -> prometheus.Counter:
        counter = prometheus.Counter(metric.name, metric.doc, metric.labels, registry=self._registry)
        for labels in metric.known:
            counter.labels(*labels)
        return counter

    def _gauge(self, metric: Gauge) -> prometheus.Gauge:
        return prometheus.Gauge(metric.name, metric.doc, metric.labels, registry=self._registry)

    def _histogram(self, metric: Histogram) -> prometheus.Histogram:
        histogram = prometheus.Histogram(
            metric.name, metric.doc, metric.labels, buckets=metric.buckets, registry=self._registry
        )
        for labels in metric.known:
            histogram.labels(*labels)
        return histogram
