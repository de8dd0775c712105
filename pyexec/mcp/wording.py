"""Say in terms of the tools' arguments what the API says in terms of its fields and of the command line's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HINTS = {
    "config.network_disabled: false, or --network)": "network: true)",
    "; change it with config.disk_mb, or --disk)": ")",
    "; delete files, or open one with config.disk_mb, or --disk)": "; delete files)",
    'requirements_txt, --requirements FILE, or a "# /// script" block)': (
        'pass them as requirements, or in a "# /// script" block)'
    ),
    "open one with requirements_txt, or --requirements FILE)": "open one with requirements)",
}
"""The ends of the hints in results, and what they say here. No tool has an argument for disk space."""
_ARGUMENTS = {
    " (--no-requirements)": "",
    "with config.memory_mb and config.disk_mb, close": "with memory_mb, close",
    "requirements_txt": "requirements",
    "config.network_disabled": "network",
    "config.": "",
}
"""Texts in errors, and what they say here. The first ones contain the others."""


def argument_terms(text: str) -> str:
    """Return an error of the API in terms of the tools' arguments."""
    for said, instead in _ARGUMENTS.items():
        text = text.replace(said, instead)
    return text


def with_argument_terms(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result whose hint names the tools' arguments. The program's own text does not change."""
    error = document.get("error")
    if not isinstance(error, str):
        return dict(document)
    for said, instead in _HINTS.items():
        error = error.replace(said, instead)
    if document.get("error_type") in ("setup_failed", "image_unavailable"):
        error = argument_terms(error)
    return {**document, "error": error}


def with_argument_terms_in_list(page: Mapping[str, Any]) -> dict[str, Any]:
    """Return a page of executions with such results."""
    return {**page, "executions": [with_argument_terms(summary) for summary in page["executions"]]}
