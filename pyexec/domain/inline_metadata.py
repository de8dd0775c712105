"""Read the inline metadata of a script: its `# /// script` block (inline script metadata, PEP 723)."""

import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from pyexec.domain.python_version import specifier_defect
from pyexec.domain.requirement_lines import LINE_LENGTH_MAX
from pyexec.domain.requirements import parse_requirement
from pyexec.errors import InvalidRequest, quote, shorten

BLOCK_BYTES_MAX = 32 * 1024
"""Maximum size of a block."""
KEY_PARTS_MAX = 32
"""Maximum number of parts in a dotted key, such as 3 in `tool.uv.sources`. The TOML parser walks from the root to the
table for each key, and its time grows with the square of the parts of a key."""
PREFIX = b"# /// script"
"""Every script with a block contains this."""

_BOM = b"\xef\xbb\xbf"
# Two expressions, because one with a possessive group for the comment lines does not match correctly in Python 3.11.2.
_START = re.compile(rb"(?m)^# /// ([a-zA-Z0-9-]+)$")
_OTHER_LINE = re.compile(rb"(?m)^(?!# |#$)")
"""The beginning of a line that cannot belong to a block."""
_END = b"\n# ///\n"
_KEY_PART = r"""(?:(?<![\w-])[\w-]++|(?<!\\)"(?:[^"\\]|\\.)*+"|'[^']*+')"""
_LONG_KEY = re.compile(rf"{_KEY_PART}(?:[ \t]*+\.[ \t]*+{_KEY_PART}){{{KEY_PARTS_MAX}}}")
"""A key with too many parts. Text with as many words between dots looks the same."""
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_BLOCK_GOES_ON = (
    "; a block ends at the last `# ///` of its comment lines, so add an empty line after the first one"
)


@frozen(kw_only=True)
class InlineMetadata:
    """The requirements that a script declares. `requirements_txt` has one line for each dependency, or is None.

    `requires_python` is a version specifier such as `>=3.12`."""

    requirements_txt: str | None
    requires_python: str | None


@frozen
class _Block:
    """A block: the number of its first line in the script, and its content without the comment signs.

    The content of a block that is not closed is its comment lines."""

    line: int
    content: bytes
    is_closed: bool = True


@frozen
class Script:
    """A file to run: its name for messages, its content, and the field of the request that holds it.

    If it is not `is_whole`, its end may be cut off."""

    name: str
    source: bytes
    field: str
    is_whole: bool = True

    def invalid(self, reason: str) -> InvalidRequest:
        """Return the error for a block that cannot be used."""
        return InvalidRequest(
            f"inline metadata of {quote(self.name)}: {reason}; correct it, or send inline_requirements: false "
            "(--no-requirements) to ignore it",
            field=self.field,
        )


def read_inline_metadata(script: Script) -> InlineMetadata | None:
    """Return the inline metadata of a script; None if it has no `script` block.

    Raise `InvalidRequest` if the block is malformed or not closed, or if there are several. The time grows linearly
    with the size of the script."""
    if PREFIX not in script.source:
        return None
    source = script.source.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    blocks = _script_blocks(source, is_whole=script.is_whole)
    block, second = next(blocks, None), next(blocks, None)
    for each in (block, second):
        if each is not None and not each.is_closed:
            end = each.line + 1 + len(each.content.splitlines())
            raise script.invalid(
                f"the script block that starts at line {each.line} is not closed by `# ///` before line {end}, where "
                "its comment lines end"
            )
    if block is None:
        return None
    if second is not None:
        raise script.invalid(
            f"line {second.line}: there is a second script block; the first one is at line {block.line}"
        )
    if len(block.content) > BLOCK_BYTES_MAX:
        raise script.invalid(
            f"line {block.line}: the block is too long; at most {BLOCK_BYTES_MAX} bytes are allowed"
        )
    text = _decode(script, source, block)
    return _read_document(script, block, text, _parse_toml(script, block, text))


def _script_blocks(source: bytes, *, is_whole: bool = True) -> Iterator[_Block]:
    """Yield the blocks of the type `script`. The closed blocks are exactly those that the regular expression of the
    specification finds.

    The time of that expression grows with the square of the number of start lines. A block ends at the last end line
    of its run of comment lines. So after a start line without an end line, no other start line of the run has one."""
    after = 0
    while start := _START.search(source, after):
        other = _OTHER_LINE.search(source, start.end() + 1)
        after = len(source) if other is None else other.start()
        if start[1] != b"script":
            continue
        lines = source[start.end() + 1 : after]
        end = (lines if lines.endswith(b"\n") else lines + b"\n").rfind(_END)
        if end >= 0:
            # At most two of three bytes of a line are its comment sign: the rest of more lines is too long, too.
            commented = lines[: min(end, 3 * BLOCK_BYTES_MAX + 1)].split(b"\n")
            content = (text[2:] if text[1:2] == b" " else text[1:] for text in commented)
            yield _Block(_line_at(source, start.start()), b"\n".join(content) + b"\n")
        elif lines.split(b"\n", 1)[0] != b"# ///" and (is_whole or after < len(source)):
            yield _Block(_line_at(source, start.start()), lines, is_closed=False)


def _line_at(source: bytes, position: int) -> int:
    return source.count(b"\n", 0, position) + 1


def _decode(script: Script, source: bytes, block: _Block) -> str:
    """Decode the block as Python decodes the script: its first two lines may declare an encoding, else it is UTF-8."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        return block.content.decode(encoding)
    except UnicodeDecodeError as error:
        at = block.line + 1 + block.content.count(b"\n", 0, error.start)
        raise script.invalid(f"line {at}: it is not {error.encoding} text") from error
    except (SyntaxError, LookupError, ValueError) as error:
        raise script.invalid(f"the script cannot be decoded: {shorten(str(error))}") from error


def _parse_toml(script: Script, block: _Block, text: str) -> dict[str, Any]:
    for at, line_text in enumerate(text.split("\n"), start=block.line + 1):
        if len(line_text) > LINE_LENGTH_MAX:
            raise script.invalid(f"line {at}: it is longer than {LINE_LENGTH_MAX} characters")
        if _LONG_KEY.search(line_text):
            raise script.invalid(f"line {at}: a key has more than {KEY_PARTS_MAX} parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise script.invalid(f"line {block.line}: the block is nested too deeply") from error
    except ValueError as error:  # also a date that does not exist
        place = _TOML_PLACE.search(str(error))
        lines = text.removesuffix("\n").split("\n")
        number = 0 if place is None else int(place[1] or len(lines))
        hint = _BLOCK_GOES_ON if any(line.startswith("///") for line in lines[:number]) else ""
        reason = shorten(_TOML_PLACE.sub("", str(error)))
        raise script.invalid(f"line {block.line + number}: not TOML: {reason}{hint}") from error


def _read_document(script: Script, block: _Block, text: str, document: dict[str, Any]) -> InlineMetadata:
    dependencies = document.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(each, str) for each in dependencies):
        raise script.invalid(f"block at line {block.line}: dependencies must be a list of strings")
    for dependency in dependencies:
        if reason := _defect(dependency):
            place = _place(block, text, dependency)
            raise script.invalid(f"{place}: dependency {quote(dependency)}: {reason}")
    requires_python = document.get("requires-python")
    if requires_python is not None and (reason := specifier_defect(requires_python)):
        raise script.invalid(f"block at line {block.line}: {reason}")
    return InlineMetadata(
        requirements_txt="".join(f"{each.strip()}\n" for each in dependencies) or None,
        requires_python=requires_python,
    )


def _place(block: _Block, text: str, dependency: str) -> str:
    """Return the line of the script that has the dependency in quotes, else that of the block: TOML has escapes."""
    for number, line in enumerate(text.split("\n"), start=block.line + 1):
        if f'"{dependency}"' in line or f"'{dependency}'" in line:
            return f"line {number}"
    return f"block at line {block.line}"


def _defect(dependency: str) -> str | None:
    """Return what is wrong with a dependency, which must mean the same as a line of a requirements.txt; None if nothing
    is."""
    if dependency.lstrip().startswith("-"):
        return "options are not allowed here; use requirements_txt for them"
    if len(dependency) > LINE_LENGTH_MAX:
        return f"it is longer than {LINE_LENGTH_MAX} characters"
    if len(dependency.splitlines()) > 1 or re.search(r"\s#", dependency):
        return "it must be a single requirement without a comment"
    if dependency.rstrip().endswith("\\"):
        return "it ends with a backslash, which would join it with the next one"
    try:
        requirement = parse_requirement(dependency.strip())
    except ValueError as error:
        return str(error)
    return "a URL needs a name before it, as in name @ URL" if requirement is None else None
