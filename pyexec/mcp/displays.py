"""Bound the displays of a result: the SDK validates and encodes each JSON value on the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyexec.mcp.executor import Document

VALUES_MAX = 20_000
"""JSON values in all displays of a result. The SDK takes 3 µs for each (2026-11-27); a long text is one value."""
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
TEXT_TYPES = ("text/markdown", "text/plain", "application/json", "text/latex", "image/svg+xml", "text/html")
NOTE = "display left out: it has too many JSON values; the HTTP API returns it"


def with_bounded_displays(result: Document) -> Document:
    """Return the result with at most `VALUES_MAX` JSON values in its displays.

    A display that exceeds this keeps its images and texts. `truncated.displays` is true then."""
    displays = result.get("displays") or ()
    kept, is_cut, left = [], False, VALUES_MAX
    for display in displays:
        count = _count(display, left)
        if count > left:
            is_cut = True
            display = _without_json(display["data"])
            count = _count(display, left)
            if count > left:
                break
        left -= count
        kept.append(display)
    if not is_cut:
        return result
    return {**result, "displays": kept, "truncated": {**result.get("truncated", {}), "displays": True}}


def _without_json(data: Mapping[str, Any]) -> Document:
    texts = {kind: data[kind] for kind in (*IMAGE_TYPES, *TEXT_TYPES) if isinstance(data.get(kind), str)}
    return {"data": texts or {"text/plain": NOTE}, "metadata": {}}


def _count(document: Any, maximum: int) -> int:
    """Return the number of values in a JSON document, names included; a larger number than `maximum` if it has more."""
    count, remaining = 1, [document]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict | list):
            count += len(value) * (2 if isinstance(value, dict) else 1)
            if count > maximum:
                return count
            remaining.extend(value.values() if isinstance(value, dict) else value)
    return count
