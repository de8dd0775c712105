"""Rules for the files of a directory that are not sent. The Go client implements the same rules.

The last pattern that matches a path decides. The patterns are, in this order:

1. `**/.git`, `**/__pycache__`, `**/.venv`, `**/node_modules`;
2. the lines of the file `.dockerignore` at the root of the directory, if there is one.

`.dockerignore` is read as Docker reads it. A byte order mark at the start, lines that begin with `#`, empty
lines, and white space around a line are skipped. A line that begins with `!` is an exception: files that
match the rest of the line are sent. A pattern is normalized as a path (`a//b/./c/../d` becomes `a/b/d`)
and a leading `/` is removed. The pattern `.` matches nothing.

A pattern is compared with the whole path relative to the root, with `/` between the names:

- `*` matches any characters except `/`, `?` matches one such character;
- `[a-z]` and `[^a-z]` match one character of a class;
- `**/` matches any number of directories, including none; `**` at the end matches everything below;
- `\\` escapes the next character.

A pattern that matches a directory matches everything in it.

An ignored directory is not searched, unless the path of an exception begins with the directory's path: with
the lines `docs` and `!docs/README.md`, that one file is sent.
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
    """The rules that apply to one directory."""

    patterns: tuple[_Pattern, ...]

    @classmethod
    def parse(cls, dockerignore: str = "") -> Self:
        """Parse the text of a `.dockerignore`. Raise ValueError for an invalid line."""
        lines = dockerignore.removeprefix("\ufeff").splitlines()
        return cls(tuple(_compile([*ALWAYS, *(line for line in lines if not line.startswith("#"))])))

    def ignores(self, path: str) -> bool:
        """Return True if the file or directory at this relative path is not sent."""
        names = path.split("/")
        prefixes = ["/".join(names[: depth + 1]) for depth in range(len(names))]
        ignored = False
        for pattern in self.patterns:
            if any(pattern.regex.fullmatch(ancestor) for ancestor in prefixes):
                ignored = not pattern.exception
        return ignored

    def prunes(self, directory: str) -> bool:
        """Return True if no exception can match anything in this ignored directory."""
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
        except re.error as error:
            raise ValueError(f".dockerignore: invalid pattern {line.strip()!r}: {error}") from error
        yield _Pattern(text, regex, exception)


_WILDCARDS = re.compile(
    r"""(?P<below>\*\*\Z)|(?P<deep>\*\*/?)|(?P<star>\*)|(?P<one>\?)"""
    r"""|\[(?P<negated>\^?)(?P<class>(?:\\.|[^\]\\])+)\]|\\(?P<literal>.)""",
    re.DOTALL,
)


def _translate(pattern: str) -> str:
    """Translate a pattern to a regular expression for `fullmatch`."""
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
