"""Split lines into statements, as the interpreter of Python does: on a terminal, or in a file."""

from __future__ import annotations

import ast
import codeop
import re

from attrs import define, field


def _new_compiler() -> codeop.CommandCompiler:
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compiler


_CLAUSE = re.compile(r"(?:else|elif|except|finally)\b")
"""Begins a line that belongs to the block before it, although it is not indented."""
_TOKEN = re.compile(r"""#|\"{3}|'{3}|["'()\[\]{}]|\\.""")
"""Outside of strings: brackets, quotes and comments. A character after a backslash is none of them."""
_STRING_ENDS = {quote: re.compile(rf"\\.|{quote}") for quote in ('"""', "'''", '"', "'")}
"""The end of a string by its quotes, or an escaped character in it."""


@define
class _Nesting:
    """The brackets and the string that the lines so far leave open."""

    depth: int = 0
    quote: str = ""

    @property
    def is_open(self) -> bool:
        return self.depth > 0 or self.quote != ""

    def add(self, line: str) -> None:
        at = 0
        while at < len(line):
            found = (_STRING_ENDS[self.quote] if self.quote else _TOKEN).search(line, at)
            if found is None or found[0] == "#":
                break
            at = found.end()
            if self.quote:
                self.quote = "" if found[0] == self.quote else self.quote
            elif found[0] in _STRING_ENDS:
                self.quote = found[0]
            elif found[0] in "([{":
                self.depth += 1
            elif found[0] in ")]}":
                self.depth -= 1
        if len(self.quote) == 1 and not line.endswith("\\"):
            self.quote = ""  # it ends with its line; the server reports the error


@define
class Statements:
    """Collects the lines of a statement until it is complete.

    On a terminal, a blank line ends a block, as in Python. In a file (`from_file`), blocks may contain blank lines: a
    block ends before the next line that does not belong to it. While a bracket or a string is open, and in a block,
    lines of a file are not parsed: parsing a statement of 2000 lines after each line took 100 s."""

    from_file: bool
    _lines: list[str] = field(factory=list)
    _nesting: _Nesting = field(factory=_Nesting)
    _is_block: bool = False
    """True if the statement goes on until a line that does not belong to its block."""
    _compiler: codeop.CommandCompiler = field(factory=_new_compiler)

    @property
    def is_empty(self) -> bool:
        """True if no statement has begun."""
        return not self._lines

    def take_before(self, line: str) -> str | None:
        """Return the block of a file that ends before this line; None if the line continues it, or if there is none."""
        if self.is_empty or not self._is_script or self._nesting.is_open:
            return None
        if not line.strip() or line.startswith((" ", "\t", "#")) or _CLAUSE.match(line):
            return None
        if self._lines[-1].endswith("\\") or not self._is_complete([*self._lines, ""]):
            return None
        return self.take()

    def add(self, line: str) -> str | None:
        """Add a line. Return the statement if it is complete; None if it needs more lines."""
        self._lines.append(line)
        if not any(each.strip() for each in self._lines):
            self._lines.clear()
            return None
        if self._is_script:
            self._nesting.add(line)
            if self._nesting.is_open or self._is_block:
                return None
        if not self._is_complete(self._lines):
            self._is_block = self._is_script and not line.endswith("\\")
            return None
        may_go_on = self._is_script and (not line.strip() or line.startswith("#"))
        return None if may_go_on else self.take()

    def take(self) -> str:
        """Return the lines so far, and begin the next statement."""
        source = "\n".join(self._lines)
        self._lines.clear()
        self._nesting, self._is_block = _Nesting(), False
        return source

    @property
    def _is_script(self) -> bool:
        """True for statements of a file, in which blocks may contain blank lines."""
        return self.from_file and not self._is_cell_magic

    @property
    def _is_cell_magic(self) -> bool:
        return self._lines[0].lstrip().startswith("%%")

    def _is_complete(self, lines: list[str]) -> bool:
        """Return True if no more lines are needed. The server reports errors of syntax: its Python may be newer."""
        if self._is_cell_magic:
            return not lines[-1].strip()
        if lines[0].lstrip().startswith(("%", "!", "?")):
            return True
        try:
            return self._compiler("\n".join(lines), symbol="single") is not None
        except (SyntaxError, ValueError, OverflowError):
            return True
