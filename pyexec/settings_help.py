"""Describe the settings for `--help` and for docs/configuration.md."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import attrs
from attrs import frozen

from pyexec.settings import Settings
from pyexec.settings_parser import allowed_values, variable_of


@frozen(kw_only=True)
class SettingDoc:
    """The description of one setting. `choices` are the only values that it takes, if it has such a list."""

    variable: str
    section: str
    doc: str
    default: str
    allowed: str
    choices: Sequence[str]


def setting_docs() -> Sequence[SettingDoc]:
    """Describe every setting, grouped by section."""
    return [_describe(setting) for setting in attrs.fields(Settings)]


def describe_settings() -> str:
    """Return one line for each setting with its default, under the title of its section."""
    lines = []
    for section, docs in groupby(setting_docs(), key=lambda doc: doc.section):
        lines += [
            "",
            f"{section}:",
            *(f"  {doc.variable:28} {_sentence(doc)} [{doc.default}]" for doc in docs),
        ]
    return "\n".join(lines[1:])


def _sentence(doc: SettingDoc) -> str:
    return f"{doc.doc}: {', '.join(doc.choices)}" if doc.choices else doc.doc


def _describe(setting: "attrs.Attribute[Any]") -> SettingDoc:
    return SettingDoc(
        variable=variable_of(setting),
        section=setting.metadata["section"],
        doc=setting.metadata["doc"],
        default=_default(setting.default),
        allowed=allowed_values(setting),
        choices=setting.metadata["choices"],
    )


def _default(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case range():
            return f"{value[0]}-{value[-1]}"
    return str(value)
