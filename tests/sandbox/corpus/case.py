"""One program of the corpus."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Case:
    """`main` is the content of main.py, `files` are the other files, and `metadata` the rest of the request."""

    main: str | bytes
    files: Mapping[str, str | bytes] = field(factory=dict, kw_only=True)
    stdin: str = field(default="", kw_only=True)
    metadata: Mapping[str, Any] = field(factory=dict, kw_only=True)
