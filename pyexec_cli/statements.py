"""Split typed lines into statements, as the interactive interpreter of Python does."""

from __future__ import annotations

import ast
import codeop

from attrs import define, field


def _new_compiler() -> codeop.CommandCompiler:
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compiler


@define
class Statements:
    """The lines of the statement that is being typed."""

    _lines: list[str] = field(factory=list)
    _compiler: codeop.CommandCompiler = field(factory=_new_compiler)
    _ended_by_blank: bool = False
    """True if a blank line has ended the last statement."""

    @property
    def is_empty(self) -> bool:
        """True if no statement has begun."""
        return not self._lines

    def is_cut_off(self, line: str) -> bool:
        """Return True if the line belongs to the statement that the blank line before it has ended."""
        return self.is_empty and self._ended_by_blank and line[:1] in (" ", "\t") and bool(line.strip())

    def add(self, line: str) -> str | None:
        """Add a line. Return the statement if it is complete; None if it needs more lines."""
        self._lines.append(line)
        source = "\n".join(self._lines)
        if not source.strip():
            self._lines.clear()
        elif self._is_complete(source):
            self._ended_by_blank = not line.strip()
            return self.take()
        return None

    def take(self) -> str:
        """Return the lines so far, and begin the next statement."""
        source = "\n".join(self._lines)
        self._lines.clear()
        return source

    def _is_complete(self, source: str) -> bool:
        """Return True if no more lines are needed. The server reports errors of syntax: its Python may be newer."""
        first = self._lines[0].lstrip()
        if first.startswith("%%"):
            return not self._lines[-1].strip()
        if first.startswith(("%", "!", "?")):
            return True
        try:
            return self._compiler(source, symbol="single") is not None
        except (SyntaxError, ValueError, OverflowError):
            return True
