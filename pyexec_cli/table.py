"""Tables of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .printable import printable


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], with_headings: bool) -> list[str]:
    """Return the lines of a table, whose columns are as wide as their cells."""
    cells = [list(map(printable, row)) for row in ([headings] if with_headings else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(" ")
        for row in cells
    ]
