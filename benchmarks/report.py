"""What was measured, as tables for people and as JSON for programs."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from benchmarks.samples import Samples


@frozen(kw_only=True)
class Amount:
    """A figure, beside its bound if it has one: `at_most`, or `at_least`."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the bound holds."""
        over = self.at_most is not None and self.value > self.at_most
        under = self.at_least is not None and self.value < self.at_least
        return not (over or under)

    @property
    def bound(self) -> str:
        """The bound, for people."""
        most = [] if self.at_most is None else [f"at most {self.at_most:.4g}"]
        least = [] if self.at_least is None else [f"at least {self.at_least:.4g}"]
        return ", ".join(least + most)

    @property
    def measured(self) -> str:
        """The value with its unit, for people."""
        return f"{self.value:.4g}{self.unit and ' '}{self.unit}"

    def __str__(self) -> str:
        if not self.bound:
            return f"        {self.name}: {self.measured}"
        return f"{'kept  ' if self.kept else 'MISSED'}  {self.name}: {self.measured}, {self.bound}"


@frozen(kw_only=True)
class _Comparison:
    """A bound on the median of `row` beside that of `reference`."""

    row: str
    reference: str

    def _medians(self, samples: Mapping[str, Samples]) -> tuple[float, float]:
        return samples[self.row].p50, samples[self.reference].p50


@frozen(kw_only=True)
class Ratio(_Comparison):
    """At most `factor` times as much."""

    factor: float

    def judge(self, samples: Mapping[str, Samples]) -> Amount:
        """What was measured, beside the bound."""
        row, reference = self._medians(samples)
        return Amount(
            name=f"{self.row} / {self.reference}", value=row / reference, unit="×", at_most=self.factor
        )


@frozen(kw_only=True)
class Surplus(_Comparison):
    """At most so many milliseconds more."""

    milliseconds: float

    def judge(self, samples: Mapping[str, Samples]) -> Amount:
        """What was measured, beside the bound."""
        row, reference = self._medians(samples)
        return Amount(
            name=f"{self.row} − {self.reference}",
            value=(row - reference) * 1000,
            unit="ms",
            at_most=self.milliseconds,
        )


@frozen(kw_only=True)
class Section:
    """One table: its rows in order, the `references` that all of them are compared with, and its figures."""

    title: str
    samples: Mapping[str, Samples] = field(factory=dict)
    references: Sequence[str] = ()
    bounds: Sequence[Ratio | Surplus] = ()
    amounts: Sequence[Amount] = ()

    def figures(self) -> Sequence[Amount]:
        """All of them."""
        return [*(bound.judge(self.samples) for bound in self.bounds), *self.amounts]

    def ratio(self, row: str, reference: str) -> float:
        """How many times the reference's median the row's is."""
        return self.samples[row].p50 / self.samples[reference].p50

    def table(self) -> str:
        """Ratios first, then the times; at last every figure, and whether it is kept."""
        return "\n".join([self.title, "", *self._rows(), *map(str, self.figures())])

    def _rows(self) -> list[str]:
        if not self.samples:
            return []
        width = max(map(len, self.samples)) + 2
        compared = "".join(f"{f'× {reference}':>20}" for reference in self.references)
        lines = [f"{'':{width}}{compared}{'p50 ms':>12}{'p95 ms':>12}{'runs':>7}"]
        for name, samples in self.samples.items():
            ratios = "".join(f"{self.ratio(name, reference):>20.3g}" for reference in self.references)
            times = f"{samples.p50 * 1000:>12.1f}{samples.p95 * 1000:>12.1f}"
            lines.append(f"{name:{width}}{ratios}{times}{len(samples.seconds):>7}")
        return [*lines, ""]

    def markdown(self) -> str:
        """The same as `table`, for a page."""
        rows = [
            [name, *(f"{self.ratio(name, r):.3g}" for r in self.references), *_times(samples)]
            for name, samples in self.samples.items()
        ]
        heads = ["", *(f"× {reference}" for reference in self.references), "p50 ms", "p95 ms"]
        figures = [[f.name, f.measured, f.bound, "" if f.kept else "missed"] for f in self.figures()]
        parts = [
            f"### {self.title}",
            *([_markdown(heads, rows)] if rows else []),
            *([_markdown(["figure", "measured", "bound", ""], figures)] if figures else []),
        ]
        return "\n\n".join(parts)

    def document(self) -> dict[str, Any]:
        """The same and every single run, for a program to read. Times are in milliseconds."""
        return {
            "title": self.title,
            "rows": [self._row(name, samples) for name, samples in self.samples.items()],
            "figures": [
                {"name": f.name, "value": f.value, "unit": f.unit, "bound": f.bound, "kept": f.kept}
                for f in self.figures()
            ],
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


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def document(sections: Sequence[Section], image: str) -> dict[str, Any]:
    """All sections, and the machine that they were measured on."""
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


def page(sections: Sequence[Section]) -> str:
    """All sections for a page, and when and on what they were measured."""
    about = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} processors, {platform.platform()}, "
        f"Python {platform.python_version()}."
    )
    return "\n\n".join([about, *(section.markdown() for section in sections)]) + "\n"
