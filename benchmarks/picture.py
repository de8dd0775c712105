"""The figures of small runs as a picture: a bar for each row, and a line where the interpreter alone would be."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.bare import BarePython, DockerRun
from benchmarks.samples import Samples

OURS, OTHERS, LIMIT = "#2b6cb0", "#a0aec0", "#c05621"
BAR_INCHES, WIDTH_INCHES, EDGE_INCHES = 0.34, 8.0, 1.2


def draw(samples: Mapping[str, Samples], file: Path) -> None:
    """Writes the picture in the format that the file's name asks for."""
    figure = Figure(figsize=(WIDTH_INCHES, BAR_INCHES * len(samples) + EDGE_INCHES), layout="constrained")
    _draw(figure.add_subplot(), samples)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _draw(axes: Axes, samples: Mapping[str, Samples]) -> None:
    ordered = sorted(samples.items(), key=lambda row: row[1].p50, reverse=True)
    names = [name for name, _ in ordered]
    milliseconds = [measured.p50 * 1000 for _, measured in ordered]
    colours = [OTHERS if name in (BarePython.name, DockerRun.name) else OURS for name in names]
    bars = axes.barh(names, milliseconds, color=colours)
    axes.bar_label(bars, labels=[f"{value:.1f}" for value in milliseconds], padding=3)
    limit = samples[BarePython.name].p50 * 1000
    axes.axvline(limit, color=LIMIT, linestyle="--", label="the interpreter alone: its start and its end")
    axes.set_xscale("log")
    axes.set_xlim(1, max(milliseconds) * 2)
    axes.set_xlabel("median of one run, ms (logarithmic)")
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
