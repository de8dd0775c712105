"""Displays: objects that a program showed, in the forms that a notebook would use."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

_BINARY = re.compile(r"(image|audio|video|font)/(?!svg\+xml$).*|application/(pdf|octet-stream|zip)")
SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "application/pdf": ".pdf",
    "text/html": ".html",
    "application/json": ".json",
    "text/markdown": ".md",
    "text/latex": ".tex",
    "application/javascript": ".js",
    "text/plain": ".txt",
}
"""The suffix of a file of each MIME type, the best type first."""


@frozen(kw_only=True)
class Display:
    """An object in one or more MIME types, as in the Jupyter protocol.

    - `data`: the value of each MIME type: JSON for JSON types, base64 for binary types, text for others
    - `metadata`: for example the width of an image, by MIME type
    """

    data: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Convert the JSON object of a response."""
        return cls(data=dict(data["data"]), metadata=dict(data.get("metadata") or {}))

    @property
    def mime_type(self) -> str:
        """Return the best MIME type: an image if there is one. Text is the last choice."""
        known = (mime for mime in SUFFIXES if mime in self.data and mime != "text/plain")
        other = (mime for mime in sorted(self.data) if mime != "text/plain")
        return next(known, next(other, "text/plain"))

    @property
    def suffix(self) -> str:
        """Return the suffix of a file of the best MIME type, such as ".png"."""
        if self.mime_type.endswith("+json"):
            return SUFFIXES["application/json"]
        return SUFFIXES.get(self.mime_type, ".bin" if _BINARY.fullmatch(self.mime_type) else ".txt")

    def content(self, mime_type: str | None = None) -> bytes:
        """Return the content of a file of this MIME type, by default of the best one.

        Raise KeyError if the display does not have the type, and ValueError if its value is malformed.
        """
        mime_type = mime_type or self.mime_type
        value = self.data[mime_type]
        if not isinstance(value, str):
            return json.dumps(value, ensure_ascii=False).encode()
        if mime_type == "application/json" or mime_type.endswith("+json"):
            return json.dumps(value, ensure_ascii=False).encode()
        if _BINARY.fullmatch(mime_type):
            return base64.b64decode(value, validate=True)
        return value.encode()

    def save(self, path: str | os.PathLike[str], mime_type: str | None = None) -> Path:
        """Write a file and return its path. The suffix of the path selects the MIME type.

        Raise ValueError for the suffix of a type that the display does not have, and as `content` does.
        """
        target = Path(path)
        suffix = target.suffix.lower().replace(".jpeg", ".jpg")
        if mime_type is None and suffix in SUFFIXES.values():
            named = (mime for mime, each in SUFFIXES.items() if each == suffix and mime in self.data)
            mime_type = next(named, self.mime_type if suffix == self.suffix else None)
            if mime_type is None:
                raise ValueError(f"the display has no {suffix} form, only {', '.join(sorted(self.data))}")
        target.write_bytes(self.content(mime_type))
        return target
