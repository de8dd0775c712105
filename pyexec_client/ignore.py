"""What of a directory is not sent. Another client that follows these rules sends the same files.

The patterns, in this order, the last one that matches decides:

1. `**/.git`, `**/__pycache__`, `**/.venv`, `**/node_modules`;
2. the lines of the file `.dockerignore` at the directory's root, if there is one, read as Docker reads them:
   a byte order mark at the start and lines that begin with `#` are dropped, white space around a line is
   dropped, empty lines are dropped. `!` at the start (white space may follow) makes an exception: what
   matches is sent after all. The rest is cleaned as a path (`a//b/./c/../d` is `a/b/d`), and a leading `/` is
   dropped. `.` alone matches nothing.

Patterns are matched against the whole path, relative to the root, with `/` between names:
`*` stands for any characters but `/`, `?` for one, `[a-z]` and `[^a-z]` for one of a class, `**/` for any
number of directories (none included), `**` at the end for everything below, and `\\` takes away the next
character's meaning. A pattern that matches a directory matches everything in it.

A directory that is left out is not even looked into, unless an exception names a path that begins, letter by
letter, with that directory's: `docs` then `!docs/README.md` sends the one file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Self

from attrs import frozen

ALWAYS = ("**/.git", "**/__pycache__", "**/.venv", "**/node_modules")


@frozen
class _Pattern:
    text: str
    regex: re.Pattern[str]
    exception: bool


@frozen
class IgnoreRules:
    """The rules in force for one directory."""

    patterns: tuple[_Pattern, ...]

    @classmethod
    def parse(cls, dockerignore: str = "") -> Self:
        """Rules from the text of a `.dockerignore`; ValueError names a line that cannot be read."""
        lines = dockerignore.removeprefix("\ufeff").splitlines()
        return cls(tuple(_compile([*ALWAYS, *(line for line in lines if not line.startswith("#"))])))

    def ignores(self, path: str) -> bool:
        """Whether the file or directory at this relative path is left out."""
        names = path.split("/")
        lineage = ["/".join(names[: depth + 1]) for depth in range(len(names))]
        ignored = False
        for pattern in self.patterns:
            if any(pattern.regex.fullmatch(ancestor) for ancestor in lineage):
                ignored = not pattern.exception
        return ignored

    def prunes(self, directory: str) -> bool:
        """Whether nothing below this ignored directory can be an exception."""
        return not any(p.exception and f"{p.text}/".startswith(f"{directory}/") for p in self.patterns)


def _compile(lines: Iterable[str]) -> Iterable[_Pattern]:
    for line in lines:
        text = line.strip()
        exception = text.startswith("!")
        text = text.removeprefix("!").strip()
        if not text:
            if exception:
                raise ValueError('.dockerignore: "!" must be followed by a pattern')
            continue
        text = posixpath.normpath(text).lstrip("/")
        if text in (".", ""):
            continue
        try:
            regex = re.compile(_translate(text), re.DOTALL)
        except re.error as problem:
            raise ValueError(
                f".dockerignore: cannot read the pattern {line.strip()!r}: {problem}"
            ) from problem
        yield _Pattern(text, regex, exception)


_WILDCARDS = re.compile(
    r"""(?P<below>\*\*\Z)|(?P<deep>\*\*/?)|(?P<star>\*)|(?P<one>\?)"""
    r"""|\[(?P<negated>\^?)(?P<class>(?:\\.|[^\]\\])+)\]|\\(?P<literal>.)""",
    re.DOTALL,
)


def _translate(pattern: str) -> str:
    """The regular expression for a pattern, to be matched in full."""
    parts, position = [], 0
    for wildcard in _WILDCARDS.finditer(pattern):
        parts.append(re.escape(pattern[position : wildcard.start()]))
        position = wildcard.end()
        match wildcard.lastgroup:
            case "below":
                parts.append(".*")
            case "deep":
                parts.append("(?:.*/)?")
            case "star":
                parts.append("[^/]*")
            case "one":
                parts.append("[^/]")
            case "literal":
                parts.append(re.escape(wildcard["literal"]))
            case _:
                inside = wildcard["class"].replace("[", r"\[")
                parts.append(f"[{wildcard['negated']}{inside}]")
    return "".join(parts) + re.escape(pattern[position:])
