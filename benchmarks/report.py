"""What was measured, as tables for people and as JSON for programs."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from benchmarks.samples import Samples


@frozen(kw_only=True)
class Ratio:
    """A bound: the median of `row` is at most `factor` times that of `reference`."""

    row: str
    reference: str
    factor: float

    def judge(self, samples: Mapping[str, Samples]) -> "Amount":
        """What was measured, beside the bound."""
        return Amount(
            name=f"{self.row} / {self.reference}",
            value=samples[self.row].p50 / samples[self.reference].p50,
            unit="×",
            at_most=self.factor,
        )


@frozen(kw_only=True)
class Surplus:
    """A bound: the median of `row` is at most so many milliseconds more than that of `reference`."""

    row: str
    reference: str
    milliseconds: float

    def judge(self, samples: Mapping[str, Samples]) -> "Amount":
        """What was measured, beside the bound."""
        return Amount(
            name=f"{self.row} − {self.reference}",
            value=(samples[self.row].p50 - samples[self.reference].p50) * 1000,
            unit="ms",
            at_most=self.milliseconds,
        )


@frozen(kw_only=True)
class Amount:
    """A figure beside its bound."""

    name: str
    value: float
    unit: str
    at_most: float

    def __str__(self) -> str:
        kept = "kept  " if self.value <= self.at_most else "MISSED"
        return (
            f"{kept}  {self.name}: {self.value:.4g}{self.unit and ' '}{self.unit}, at most {self.at_most:.4g}"
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

    def document(self) -> dict[str, Any]:
        """The same and every single run, for a program to read. Times are in milliseconds."""
        return {
            "title": self.title,
            "rows": [self._row(name, samples) for name, samples in self.samples.items()],
            "figures": [
                {"name": f.name, "value": f.value, "unit": f.unit, "at_most": f.at_most}
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
