"""Keep the answer to a tool call within the size that clients accept."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mcp_types import ContentBlock, TextContent

from pyexec.mcp.executor import Document

MESSAGE_BYTES_MAX = 900_000
"""The client of the Python SDK refuses an event of more than 1 MiB, unless it is configured otherwise (mcp 2.3)."""
CHARACTERS_MAX = 2_000
"""How much of each output `structuredContent` keeps if it does not fit. The text content shows more."""
FILES_MAX = 100
"""How many entries of each list of files it keeps then."""


def within_limit(blocks: Iterable[ContentBlock], result: Document) -> tuple[list[ContentBlock], Document]:
    """Return the parts of an answer, cut so that both together have about `MESSAGE_BYTES_MAX` bytes as JSON.

    The first block is the text of the result, and always stays. A note says how many other blocks were too large. If
    the result does not fit beside the blocks, it has only the beginning of its texts and lists, and `truncated` names
    those."""
    kept: list[ContentBlock] = []
    left, left_out = MESSAGE_BYTES_MAX, 0
    for block in blocks:
        size = len(block.model_dump_json().encode())
        if kept and size > left:
            left_out += 1
            continue
        kept.append(block)
        left -= size
    if left_out:
        kept.append(
            TextContent(text=f"{left_out} images, texts or files left out: the answer would be too large")
        )
    return kept, result if _fits(result, left) else _without_large_parts(result)


def _fits(result: Document, size_max: int) -> bool:
    texts = sum(len(result.get(name) or "") for name in ("stdout", "stderr"))
    return texts <= size_max and len(json.dumps(result, ensure_ascii=False).encode()) <= size_max


def _without_large_parts(result: Document) -> Document:
    cut = dict(result)
    truncated = dict(result.get("truncated", {}))
    for name in ("stdout", "stderr"):
        if len(result.get(name) or "") > CHARACTERS_MAX:
            cut[name], truncated[name] = result[name][:CHARACTERS_MAX], True
    if len(result.get("result") or "") > CHARACTERS_MAX:
        cut["result"], truncated["result"] = result["result"][:CHARACTERS_MAX], True
    if result.get("displays"):
        cut["displays"], truncated["displays"] = [], True
    for name in ("files", "files_skipped"):
        if name in result:
            cut[name] = result[name][:FILES_MAX]
    return {**cut, "truncated": truncated}
