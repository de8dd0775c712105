"""Find the code blocks of the documentation: their page, line, heading and language."""

import re
from collections.abc import Sequence

from attrs import frozen

from tests.support.paths import ROOT

RUN = ("bash", "sh", "python", "go")
"""Languages of blocks that the tests run."""
SHOWN = ("console", "text", "json", "hcl", "toml", "yaml", "promql")
"""Languages of blocks that the tests do not run: terminal output, server output, file contents."""
_FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.M)


@frozen(kw_only=True)
class Block:
    """A fenced block of a page, with the heading above it."""

    page: str
    line: int
    heading: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Return the first line, which identifies the block in tests."""
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.first})"


def pages() -> Sequence[str]:
    """Return the paths of all documentation pages, relative to the repository."""
    return [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
    ]


def served_pages() -> Sequence[str]:
    """Return the paths of the pages that every server serves."""
    return ["llms.txt", *pages(), "CHANGELOG.md", "benchmarks/README.md"]


def text_of(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text()


def prose_of(page: str) -> str:
    """Return a page with its blocks replaced by empty lines, so that line numbers stay the same."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text_of(page))


def blocks(page: str) -> Sequence[Block]:
    """Return all blocks of a page, in order."""
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
