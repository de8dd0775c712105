"""The settings, described for people: what `--help` prints and docs/configuration.md shows."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import attrs
from attrs import frozen

from pyexec.settings import PREFIX, Settings


@frozen(kw_only=True)
class Described:
    """One setting: its variable, its section, its meaning with the unit, its default, what is allowed, and the only
    `names` that are, if it takes such."""

    variable: str
    section: str
    doc: str
    default: str
    allowed: str
    names: Sequence[str]


def described() -> Sequence[Described]:
    """Every setting; those of a section stand together."""
    return [_described(attribute) for attribute in attrs.fields(Settings)]


def describe_settings() -> str:
    """Every setting with its default, a line each, under the title of its section."""
    lines = []
    for section, settings in groupby(described(), key=lambda setting: setting.section):
        lines += ["", f"{section}:", *(f"  {s.variable:28} {_sentence(s)} [{s.default}]" for s in settings)]
    return "\n".join(lines[1:])


def _sentence(setting: Described) -> str:
    return f"{setting.doc}; of {', '.join(setting.names)}" if setting.names else setting.doc


def _described(attribute: "attrs.Attribute[Any]") -> Described:
    default = ",".join(attribute.default) if isinstance(attribute.default, tuple) else attribute.default
    return Described(
        variable=PREFIX + attribute.name.upper(),
        section=attribute.metadata["section"],
        doc=attribute.metadata["doc"],
        default="none" if default in (None, "") else str(default),
        allowed=_allowed(attribute),
        names=attribute.metadata["allowed"],
    )


def _allowed(attribute: "attrs.Attribute[Any]") -> str:
    """What a value may be, in words."""
    kind, least, names = (
        str(attribute.type),
        attribute.metadata["least"],
        ", ".join(attribute.metadata["allowed"]),
    )
    if "tuple" in kind:
        return f"a list of {names}" if names else "a list"
    if names:
        return names
    if "Path" in kind:
        return "a path"
    if "int" not in kind and "float" not in kind:
        return "text"
    number = "a whole number" if "int" in kind else "a number"
    return number if least is None else f"{number}, at least {least:g}"
