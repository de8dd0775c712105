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

from pyexec.mcp.displays import IMAGE_TYPES, TEXT_TYPES, with_bounded_displays
from pyexec.mcp.executor import Document

TEXT_CHARACTERS_MAX = 50_000
"""Characters of each output that the text content shows. `structuredContent` and the resources have all of it."""
_ARGUMENTS = {
    "with config.network_disabled: false, or --network": "with network: true",
    "; change it with config.disk_mb, or --disk": "",
    ", or open one with config.disk_mb, or --disk": "",
    "the requirements: requirements_txt, --requirements FILE, or": "the argument requirements, or",
    "requirements_txt, or --requirements FILE": "requirements",
    "as stdin, or with --stdin FILE": "as stdin",
}
"""What the hints in the errors of programs name, and what a model passes to the tools instead."""
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
    result = with_bounded_displays(result)
    return CallToolResult(content=list(_blocks(result)), structured_content=result)


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
        facts += [result["error_type"]] if result.get("error_type") else []
        facts += [_error_for_model(result["error"])] if result.get("error") else []
    if result.get("interpreter_restarted"):
        facts.append("the session has a new interpreter: its variables are lost")
    if result.get("truncated", {}).get("displays"):
        facts.append("some displays are left out")
    facts += [f"not returned: {_skipped(entry)}" for entry in result.get("files_skipped") or ()]
    return shortened(", ".join(facts))


def _error_for_model(error: str) -> str:
    """Return the error of a program with the arguments of the tools in the server's hints."""
    for names, argument in _ARGUMENTS.items():
        error = error.replace(names, argument)
    return error


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
