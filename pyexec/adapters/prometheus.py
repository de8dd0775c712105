"""Everything that is measured, as Prometheus reads it. No other file imports its library."""

from collections.abc import Callable

import prometheus_client as prometheus

from pyexec.metrics import CATALOGUE, Counter, Gauge, Histogram

# A line more for each series, of which nobody asks anything.
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]


class PrometheusMeter:
    """`measures.Meter` with a registry of its own, and the process' own figures beside."""

    content_type = prometheus.CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._counters = {m: self._counter(m) for m in CATALOGUE if isinstance(m, Counter)}
        self._gauges = {m: self._gauge(m) for m in CATALOGUE if isinstance(m, Gauge)}
        self._histograms = {m: self._histogram(m) for m in CATALOGUE if isinstance(m, Histogram)}
        # The library's own look for a series takes longer than counting does.
        self._counting: dict[tuple[Counter, tuple[str, ...]], prometheus.Counter] = {}
        self._observing: dict[tuple[Histogram, tuple[str, ...]], prometheus.Histogram] = {}

    def count(self, measure: Counter, *labels: str, by: float = 1) -> None:
        series = self._counting.get((measure, labels))
        if series is None:
            family = self._counters[measure]
            series = self._counting[measure, labels] = family.labels(*labels) if labels else family
        series.inc(by)

    def observe(self, measure: Histogram, value: float, *labels: str) -> None:
        series = self._observing.get((measure, labels))
        if series is None:
            family = self._histograms[measure]
            series = self._observing[measure, labels] = family.labels(*labels) if labels else family
        series.observe(value)

    def watch(self, measure: Gauge, read: Callable[[], float], *labels: str) -> None:
        family = self._gauges[measure]
        (family.labels(*labels) if labels else family).set_function(read)

    def exposition(self) -> bytes:
        """All of it at this moment, in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)

    def _counter(self, measure: Counter) -> prometheus.Counter:
        counter = prometheus.Counter(measure.name, measure.doc, measure.labels, registry=self._registry)
        for labels in measure.known:
            counter.labels(*labels)
        return counter

    def _gauge(self, measure: Gauge) -> prometheus.Gauge:
        return prometheus.Gauge(measure.name, measure.doc, measure.labels, registry=self._registry)

    def _histogram(self, measure: Histogram) -> prometheus.Histogram:
        histogram = prometheus.Histogram(
            measure.name, measure.doc, measure.labels, buckets=measure.buckets, registry=self._registry
        )
        for labels in measure.known:
            histogram.labels(*labels)
        return histogram
