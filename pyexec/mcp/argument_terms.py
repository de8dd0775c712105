"""Replace names of the API's fields and of command line flags in messages by names of the tools' arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OTHER_NAMES = {
    **dict.fromkeys(("packages", "dependencies", "libraries", "modules"), "requirements"),
    **dict.fromkeys(("environment", "variables"), "env_vars"),
    **dict.fromkeys(("argv", "arguments"), "script_args"),
    "input": "stdin",
    "time_limit": "timeout_seconds",
}
"""Names that other services use, and the argument to suggest for each, as in the HTTP API. Not every tool has each of
these arguments."""
_HINTS = {
    "config.network_disabled: false, or --network)": "network: true)",
    "; change it with config.disk_mb, or --disk)": ")",
    "; delete files, or open one with config.disk_mb, or --disk)": "; delete files)",
    'requirements_txt, --requirements FILE, or a "# /// script" block)': (
        'pass them as requirements, or in a "# /// script" block)'
    ),
    "pass it with stdin, or --stdin FILE)": "pass it with stdin)",
    "open one with requirements_txt, or --requirements FILE)": "open one with requirements)",
}
"""The ends of the hints in results, and their replacements. No tool has an argument for disk space."""
_ARGUMENTS = {
    " (--no-requirements)": "",
    "with config.memory_mb and config.disk_mb, close": "with memory_mb, close",
    "requirements_txt": "requirements",
    "config.network_disabled": "network",
}
"""Parts of errors, and their replacements."""
_LIMIT = re.compile(r"\bconfig\.(?=(?:timeout_seconds|memory_mb|disk_mb|cpu_shares|cpus|cpu_seconds)\b)")


def argument_terms(text: str) -> str:
    """Return an error message of the API, or the name of a field, in terms of the tools' arguments."""
    for api_text, tool_text in _ARGUMENTS.items():
        text = text.replace(api_text, tool_text)
    return _LIMIT.sub("", text)


def with_argument_terms(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result whose hint names the tools' arguments. The program's own text does not change."""
    error = document.get("error")
    if not isinstance(error, str):
        return dict(document)
    for api_text, tool_text in _HINTS.items():
        error = error.replace(api_text, tool_text)
    return {**document, "error": error}


def with_argument_terms_in_list(page: Mapping[str, Any]) -> dict[str, Any]:
    """Return a page of executions whose hints name the tools' arguments."""
    return {**page, "executions": [with_argument_terms(summary) for summary in page["executions"]]}
