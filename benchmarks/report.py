"""Benchmark results as tables for people, as JSON for programs, and as a chart."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.baselines import BarePython, DockerRun
from benchmarks.timing import Samples

SERVICE_COLOUR, BASELINE_COLOUR, LINE_COLOUR = "#2b6cb0", "#a0aec0", "#c05621"
BASELINES = (BarePython.name, DockerRun.name, "go-judge")
RATE_UNIT, RATE_PREFIX = "runs/s", "rate, "
BAR_INCHES, WIDTH_INCHES, MARGIN_INCHES = 0.34, 11.0, 1.2


@frozen(kw_only=True)
class Measurement:
    """A measured value, with an optional bound: `at_most` or `at_least`. NaN, if not measured, misses every bound."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Return True if the value is within the bound."""
        within_most = self.at_most is None or self.value <= self.at_most
        within_least = self.at_least is None or self.value >= self.at_least
        return within_most and within_least

    @property
    def bound(self) -> str:
        """Format the bound; empty if there is none."""
        most = [] if self.at_most is None else [f"at most {self.at_most:.4g}"]
        least = [] if self.at_least is None else [f"at least {self.at_least:.4g}"]
        return ", ".join(least + most)

    @property
    def measured(self) -> str:
        """Format the value with its unit."""
        if math.isnan(self.value):
            return "not measured"
        return f"{self.value:.4g}{self.unit and ' '}{self.unit}"

    def document(self) -> dict[str, Any]:
        """Return the same as JSON; the value is null if it was not measured."""
        value = None if math.isnan(self.value) else self.value
        return {"name": self.name, "value": value, "unit": self.unit, "bound": self.bound, "met": self.met}

    def __str__(self) -> str:
        if not self.bound:
            return f"        {self.name}: {self.measured}"
        return f"{'ok    ' if self.met else 'MISSED'}  {self.name}: {self.measured} ({self.bound})"


@frozen(kw_only=True)
class _Bound:
    """A bound on the median of `row`, relative to the median of `reference`."""

    row: str
    reference: str

    def _medians(self, samples: Mapping[str, Samples]) -> tuple[float, float]:
        return samples[self.row].p50, samples[self.reference].p50


@frozen(kw_only=True)
class RatioBound(_Bound):
    """The row takes at most `factor` times as long as the reference."""

    factor: float

    def evaluate(self, samples: Mapping[str, Samples]) -> Measurement:
        """Compute the ratio and attach the bound to it."""
        row, reference = self._medians(samples)
        return Measurement(
            name=f"{self.row} / {self.reference}", value=row / reference, unit="×", at_most=self.factor
        )


@frozen(kw_only=True)
class DifferenceBound(_Bound):
    """The row takes at most `milliseconds` longer than the reference."""

    milliseconds: float

    def evaluate(self, samples: Mapping[str, Samples]) -> Measurement:
        """Compute the difference and attach the bound to it."""
        row, reference = self._medians(samples)
        return Measurement(
            name=f"{self.row} − {self.reference}",
            value=(row - reference) * 1000,
            unit="ms",
            at_most=self.milliseconds,
        )


@frozen(kw_only=True)
class Section:
    """The results of one subject: a table of rows, the `references` that rows are compared with, and measurements."""

    title: str
    samples: Mapping[str, Samples] = field(factory=dict)
    references: Sequence[str] = ()
    bounds: Sequence[RatioBound | DifferenceBound] = ()
    measurements: Sequence[Measurement] = ()

    def all_measurements(self) -> Sequence[Measurement]:
        """Return the measurements, those computed from `bounds` first."""
        return [*(bound.evaluate(self.samples) for bound in self.bounds), *self.measurements]

    def ratio(self, row: str, reference: str) -> float:
        """Return the row's median divided by the reference's."""
        return self.samples[row].p50 / self.samples[reference].p50

    def table(self) -> str:
        """Format the rows for a terminal, then each measurement and whether it meets its bound."""
        return "\n".join([self.title, "", *self._rows(), *map(str, self.all_measurements())])

    def _rows(self) -> list[str]:
        if not self.samples:
            return []
        width = max(map(len, self.samples)) + 2
        columns = {reference: max(20, len(reference) + 4) for reference in self.references}
        compared = "".join(f"{f'× {reference}':>{columns[reference]}}" for reference in self.references)
        lines = [f"{'':{width}}{compared}{'p50 ms':>12}{'p95 ms':>12}{'runs':>7}"]
        for name, samples in self.samples.items():
            ratios = "".join(f"{self.ratio(name, r):>{column}.3g}" for r, column in columns.items())
            times = f"{samples.p50 * 1000:>12.1f}{samples.p95 * 1000:>12.1f}"
            lines.append(f"{name:{width}}{ratios}{times}{len(samples.seconds):>7}")
        return [*lines, ""]

    def markdown(self) -> str:
        """Format the same as `table` in Markdown."""
        rows = [
            [name, *(f"{self.ratio(name, r):.3g}" for r in self.references), *_times(samples)]
            for name, samples in self.samples.items()
        ]
        heads = ["", *(f"× {reference}" for reference in self.references), "p50 ms", "p95 ms"]
        measured = [[m.name, m.measured, m.bound, "" if m.met else "missed"] for m in self.all_measurements()]
        parts = [
            f"### {self.title}",
            *([_markdown_table(heads, rows)] if rows else []),
            *([_markdown_table(["figure", "measured", "bound", ""], measured)] if measured else []),
        ]
        return "\n\n".join(parts)

    def document(self) -> dict[str, Any]:
        """Return the results and the time of every run as JSON; times are in milliseconds."""
        return {
            "title": self.title,
            "rows": [self._row(name, samples) for name, samples in self.samples.items()],
            "figures": [m.document() for m in self.all_measurements()],
        }

    def _row(self, name: str, samples: Samples) -> dict[str, Any]:
        return {
            "name": name,
            "ratios": {reference: self.ratio(name, reference) for reference in self.references},
            "p50_ms": samples.p50 * 1000,
            "p95_ms": samples.p95 * 1000,
            "runs_ms": [seconds * 1000 for seconds in samples.seconds],
        }


def _times(samples: Samples) -> list[str]:
    return [f"{samples.p50 * 1000:.1f}", f"{samples.p95 * 1000:.1f}"]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def json_report(sections: Sequence[Section], image: str) -> dict[str, Any]:
    """Return all sections, the time, and the machine they were measured on."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "load_1m": os.getloadavg()[0],
            "image": image,
        },
        "sections": [section.document() for section in sections],
    }


def markdown_report(sections: Sequence[Section]) -> str:
    """Format all sections in Markdown, after a line with the date and the machine."""
    about = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} processors, {platform.platform()}, "
        f"Python {platform.python_version()}."
    )
    return "\n\n".join([about, *(section.markdown() for section in sections)]) + "\n"


def draw_chart(latency: Section, throughput: Section, file: Path) -> None:
    """Draw the latency of each row, and next to it the throughput of each; the file's suffix decides the format."""
    rates = {
        m.name.removeprefix(RATE_PREFIX): m.value for m in throughput.measurements if m.unit == RATE_UNIT
    }
    height = BAR_INCHES * len(latency.samples) + MARGIN_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    medians = {name: samples.p50 * 1000 for name, samples in latency.samples.items()}
    _draw_bars(left, sorted(medians.items(), key=lambda row: -row[1]), margin=2)
    left.set_title("latency: a small program, one at a time")
    left.set_xlabel("median, ms (logarithmic)")
    left.set_xscale("log")
    left.set_xlim(left=1)
    left.axvline(medians[BarePython.name], color=LINE_COLOUR, linestyle="--", label=BarePython.name)
    left.legend(loc="upper right", frameon=False)
    _draw_bars(right, sorted(rates.items(), key=lambda row: row[1]), margin=1.2)
    right.set_title("throughput: 4 callers without a pause")
    right.set_xlabel("runs per second")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _draw_bars(axes: Axes, rows: Sequence[tuple[str, float]], margin: float) -> None:
    """Draw one bar for each row, the last one at the top. The axis ends at `margin` times the largest value."""
    values = [value for _, value in rows]
    colours = [BASELINE_COLOUR if name in BASELINES else SERVICE_COLOUR for name, _ in rows]
    bars = axes.barh([name for name, _ in rows], values, color=colours)
    axes.bar_label(bars, labels=[f"{value:.1f}" for value in values], padding=3)
    axes.set_xlim(right=max(values) * margin)
    axes.spines[["top", "right"]].set_visible(False)
