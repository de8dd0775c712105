"""The code on the pages that people read: where each block stands, and in which language."""

import re
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
RUN = ("bash", "sh", "python", "go")
"""Languages of blocks that a test runs."""
SHOWN = ("console", "text", "json", "hcl", "yaml", "promql")
"""Languages of blocks that only show something: what a terminal or a server says, or a file."""
_FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.M)


@frozen(kw_only=True)
class Block:
    """One fenced block of a page, and the heading it stands under."""

    page: str
    line: int
    heading: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which a test names it."""
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.first})"


def pages() -> Sequence[str]:
    """All pages that are for people, by their paths in the repository."""
    return [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
    ]


def text_of(page: str) -> str:
    """A whole page."""
    return (ROOT / page).read_text()


def prose_of(page: str) -> str:
    """A page without its blocks, with as many lines."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text_of(page))


def blocks(page: str) -> Sequence[Block]:
    """All blocks of a page, in order."""
    text = text_of(page)
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            heading=([h["title"] for h in _HEADING.finditer(text, 0, found.start())] or [""])[-1],
            language=found["language"],
            text=found["text"],
        )
        for found in _FENCE.finditer(text)
    ]
