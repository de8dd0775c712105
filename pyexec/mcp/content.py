"""Turn results and files into content that a model can read: text, images, and links to files."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from pyexec.mcp.argument_terms import with_argument_terms
from pyexec.mcp.executor import DISPLAY_VALUES_MAX, Document
from pyexec.mcp.message_size import within_limit

TEXT_CHARACTERS_MAX = 50_000
"""Characters of each output that the text content shows. The resources have all of it."""
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
TEXT_TYPES = ("text/markdown", "text/plain", "application/json", "text/latex", "image/svg+xml", "text/html")
DISPLAY_LEFT_OUT = "display left out: it has too many JSON values; the HTTP API returns it"
_BINARY = "application/octet-stream"
_SIGNATURES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
"""How the files of each of `IMAGE_TYPES` begin."""


def execution_uri(execution_id: str, *parts: str) -> str:
    """Return the URI of an execution's resource."""
    return "/".join(["pyexec://executions", execution_id, *(quote(part) for part in parts)])


def session_file_uri(session_id: str, path: str) -> str:
    """Return the URI of a file of a session."""
    return f"pyexec://sessions/{session_id}/files/{quote(path)}"


def tool_result(result: Document) -> CallToolResult:
    """Return a run's result for a model. A program that failed is an error that the model can see."""
    return state_result(result).model_copy(update={"is_error": not is_success(result)})


def is_success(result: Document) -> bool:
    """Return True unless the execution has ended without success."""
    if result["status"] in ("pending", "running"):
        return True
    return result["status"] == "completed" and result.get("exit_code") == 0


def state_result(result: Document) -> CallToolResult:
    """Return the state of an execution for a model. That a program failed is no error of the call."""
    result = with_argument_terms(with_bounded_displays(result))
    content, structured = within_limit(_blocks(result), result)
    return CallToolResult(content=content, structured_content=structured)


def _blocks(result: Document) -> Iterator[ContentBlock]:
    yield TextContent(text="\n\n".join(_sections(result)))
    for display in result.get("displays") or ():
        if (block := _display(display["data"], result.get("result"))) is not None:
            yield block
    for file in result.get("files") or ():
        yield ResourceLink(
            uri=execution_uri(result["execution_id"], "files", file["path"]),
            name=file["path"],
            mime_type=_type_of(file["path"]),
            size=file["size"],
        )


def _sections(result: Document) -> Iterator[str]:
    cut = result.get("truncated", {})
    for name in ("stdout", "stderr"):
        if text := result.get(name):
            note = " (the server stored only its beginning)" if cut.get(name) else ""
            yield f"{name}{note}:\n{shortened(text.rstrip())}"
    if (value := result.get("result")) not in (None, "None"):  # as in an interactive interpreter
        yield f"result: {shortened(value)}"
    yield _summary(result)


def _summary(result: Document) -> str:
    """Return how the execution ended, in one line."""
    facts = [f"{result['execution_id']}: {result['status']}"]
    if (code := result.get("exit_code")) is not None:
        facts.append(f"exit code {code}")
    if (milliseconds := result.get("duration_ms")) is not None:
        facts.append(f"{milliseconds} ms")
    if not is_success(result):
        facts += [str(result[name]) for name in ("error_type", "error") if result.get(name)]
    if result.get("interpreter_restarted"):
        facts.append("the session has a new interpreter: its variables are lost")
    if result.get("truncated", {}).get("displays"):
        facts.append("some displays are left out")
    facts += [f"not returned: {_skipped(entry)}" for entry in result.get("files_skipped") or ()]
    return shortened(", ".join(facts))


def _skipped(entry: Mapping[str, str]) -> str:
    return f"{entry.get('path') or entry.get('pattern')} ({entry['reason']})"


def shortened(text: str) -> str:
    """Leave out the middle of a long text: the end of an output says how it ended."""
    if len(text) <= TEXT_CHARACTERS_MAX:
        return text
    half = TEXT_CHARACTERS_MAX // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _display(data: Mapping[str, Any], result: str | None) -> ContentBlock | None:
    """Return the richest form of a display that a model can read. None if it only repeats the result."""
    for kind in IMAGE_TYPES:
        if kind in data:
            encoded = "".join(data[kind].split())
            if _is_image(kind, base64.b64decode(encoded[:32])):
                return ImageContent(data=encoded, mime_type=kind)
    for kind in (*TEXT_TYPES, *data):
        if kind in data:
            text = data[kind] if isinstance(data[kind], str) else json.dumps(data[kind])
            return None if text == result else TextContent(text=shortened(text))
    return None


def _is_image(kind: str, content: bytes) -> bool:
    """Return True if the content begins as an image of this type.

    A model's service rejects the whole conversation if it contains an image that is none."""
    return _SIGNATURES[kind].match(content) is not None


def file_content(uri: str, path: str, content: bytes) -> ContentBlock:
    """Return an output file: an image, a text, or bytes."""
    kind = _type_of(path)
    if kind in IMAGE_TYPES and _is_image(kind, content):
        return ImageContent(data=base64.b64encode(content).decode(), mime_type=kind)
    contents = resource_contents(uri, path, content)
    if isinstance(contents, TextResourceContents):
        return TextContent(text=contents.text)
    return EmbeddedResource(resource=contents)


def resource_contents(uri: str, path: str, content: bytes) -> TextResourceContents | BlobResourceContents:
    """Return a file as the contents of a resource: text if it is UTF-8, else base64."""
    kind = _type_of(path)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return BlobResourceContents(
            uri=uri, mime_type=kind or _BINARY, blob=base64.b64encode(content).decode()
        )
    return TextResourceContents(uri=uri, mime_type=kind or "text/plain", text=text)


def _type_of(path: str) -> str | None:
    return mimetypes.guess_type(path)[0]


def with_bounded_displays(result: Document) -> Document:
    """Return the result with at most `DISPLAY_VALUES_MAX` JSON values in its displays.

    A display that exceeds this keeps its images and texts. `truncated.displays` is true then."""
    displays = result.get("displays") or ()
    kept, is_cut, left = [], False, DISPLAY_VALUES_MAX
    for display in displays:
        count = _count_values(display, left)
        if count > left or not display["data"]:
            is_cut = True
            display = _without_json(display["data"])
            count = _count_values(display, left)
            if count > left:
                break
        left -= count
        kept.append(display)
    if not is_cut:
        return result
    return {**result, "displays": kept, "truncated": {**result.get("truncated", {}), "displays": True}}


def _without_json(data: Mapping[str, Any]) -> Document:
    texts = {kind: data[kind] for kind in (*IMAGE_TYPES, *TEXT_TYPES) if isinstance(data.get(kind), str)}
    return {"data": texts or {"text/plain": DISPLAY_LEFT_OUT}, "metadata": {}}


def _count_values(document: Any, maximum: int) -> int:
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
