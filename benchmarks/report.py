"""What was measured, as a table for people and as JSON for programs."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from benchmarks.samples import Samples


@frozen(kw_only=True)
class Figure:
    """A bound: the median of `row` is at most `factor` times that of `reference`."""

    row: str
    reference: str
    factor: float


@frozen(kw_only=True)
class Amount:
    """A bound on something that is no time, in MiB."""

    name: str
    mebibytes: float
    at_most: float


@frozen(kw_only=True)
class Report:
    """All rows in the order of the table; `references` are those that every other is compared with."""

    samples: Mapping[str, Samples]
    references: Sequence[str]
    figures: Sequence[Figure]
    amounts: Sequence[Amount]
    image: str

    def ratio(self, row: str, reference: str) -> float:
        """How many times the reference's median the row's is."""
        return self.samples[row].p50 / self.samples[reference].p50

    def table(self) -> str:
        """Ratios first, then the times; at last every figure, and whether it is kept."""
        compared = "".join(f"{f'× {reference}':>20}" for reference in self.references)
        lines = [f"{'':24}{compared}{'p50 ms':>12}{'p95 ms':>12}{'runs':>7}"]
        for name, samples in self.samples.items():
            ratios = "".join(f"{self.ratio(name, reference):>20.3g}" for reference in self.references)
            times = f"{samples.p50 * 1000:>12.1f}{samples.p95 * 1000:>12.1f}"
            lines.append(f"{name:24}{ratios}{times}{len(samples.seconds):>7}")
        return "\n".join([*lines, "", *self._verdicts()])

    def _verdicts(self) -> list[str]:
        lines = []
        for figure in self.figures:
            ratio = self.ratio(figure.row, figure.reference)
            text = f"{figure.row}: {ratio:.3g} × {figure.reference}, at most {figure.factor:.3g}"
            lines.append(_verdict(ratio <= figure.factor, text))
        for amount in self.amounts:
            text = f"{amount.name}: {amount.mebibytes:.1f} MiB, at most {amount.at_most:g}"
            lines.append(_verdict(amount.mebibytes <= amount.at_most, text))
        return lines

    def document(self) -> dict[str, Any]:
        """The same and every single run, for a program to read. Times are in milliseconds."""
        return {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "system": platform.platform(),
                "processors": os.cpu_count(),
                "load_1m": os.getloadavg()[0],
                "image": self.image,
            },
            "rows": [self._row(name, samples) for name, samples in self.samples.items()],
            "figures": [
                {
                    "row": figure.row,
                    "reference": figure.reference,
                    "ratio": self.ratio(figure.row, figure.reference),
                    "at_most": figure.factor,
                }
                for figure in self.figures
            ],
            "amounts": [
                {"name": amount.name, "mebibytes": amount.mebibytes, "at_most": amount.at_most}
                for amount in self.amounts
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


def _verdict(kept: bool, text: str) -> str:
    return f"{'kept  ' if kept else 'MISSED'}  {text}"
