"""Everything that is measured, as Prometheus reads it. No other file imports its library."""

from collections.abc import Callable

import prometheus_client as prometheus

from pyexec.measures import CATALOGUE, Counter, Gauge, Histogram

prometheus.disable_created_metrics()  # a line more for each series, of which nobody asks anything


class PrometheusMeter:
    """`measures.Meter` with a registry of its own, and the process' own figures beside."""

    content_type = prometheus.CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._counters = {m: self._counter(m) for m in CATALOGUE if isinstance(m, Counter)}
        self._gauges = {m: self._gauge(m) for m in CATALOGUE if isinstance(m, Gauge)}
        self._histograms = {m: self._histogram(m) for m in CATALOGUE if isinstance(m, Histogram)}

    def count(self, measure: Counter, *labels: str, by: float = 1) -> None:
        counter = self._counters[measure]
        (counter.labels(*labels) if labels else counter).inc(by)

    def observe(self, measure: Histogram, value: float, *labels: str) -> None:
        histogram = self._histograms[measure]
        (histogram.labels(*labels) if labels else histogram).observe(value)

    def watch(self, measure: Gauge, read: Callable[[], float], *labels: str) -> None:
        gauge = self._gauges[measure]
        (gauge.labels(*labels) if labels else gauge).set_function(read)

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


