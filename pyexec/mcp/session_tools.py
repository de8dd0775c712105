"""The tools for sessions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult, TextContent, ToolAnnotations

from pyexec.mcp import descriptions
from pyexec.mcp.content import file_content, session_file_uri, tool_result
from pyexec.mcp.executor import Document, tool_error
from pyexec.mcp.schemas import ApiSchemas, Schema
from pyexec.mcp.tool_entry import Call, ToolEntry, tool_entry

FILE_BYTES_MAX = 8 * 1024 * 1024
"""The largest file that is read or written as content. Larger ones are for the HTTP API."""
SESSION_ARGUMENTS = ("code", "session_id", "timeout_seconds")
"""The arguments of `run_python` that a cell can have."""
_INSTEAD = {
    "network": "give it to open_session",
    "requirements": "give it to open_session",
    "inline_requirements": "give requirements to open_session",
    "files": "use write_file",
    "stdin": "write the input to a file with write_file",
    "output_files": "use list_files and read_file",
}
"""Advice for each argument that a run can have, but not a cell of a session."""

_CHANGES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
_WRITES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def has_sessions(api: ApiSchemas) -> bool:
    """Return True if the server has sessions."""
    return api.has_component("SessionView") and api.has_component("SessionRequest")


def session_id_of(api: ApiSchemas, description: str) -> Schema:
    """Return the schema of the argument that names a session."""
    return api.field("SessionView", "id", description=description)


def session_tools(api: ApiSchemas) -> tuple[ToolEntry, ...]:
    """Return the tools for sessions; none if the server has no sessions."""
    if not has_sessions(api):
        return ()
    session = {"session_id": session_id_of(api, descriptions.SESSION_ID)}
    path: Schema = {"type": "string", "description": descriptions.SESSION_PATH}
    return (
        tool_entry(
            run=_open,
            name="open_session",
            title="Open a session",
            description=descriptions.OPEN_SESSION,
            arguments=api.arguments(
                [],
                requirements=api.field("SessionRequest", "requirements_txt"),
                network={"type": "boolean", "default": False, "description": descriptions.NETWORK},
                timeout_seconds=api.field("RequestedLimits", "timeout_seconds"),
                memory_mb=api.field("RequestedLimits", "memory_mb"),
                idle_timeout_seconds=api.field("SessionRequest", "idle_timeout_seconds"),
                lifetime_seconds=api.field("SessionRequest", "lifetime_seconds"),
            ),
            output=api.output("SessionView"),
            annotations=_CHANGES,
        ),
        tool_entry(
            run=_close,
            name="close_session",
            title="Close a session",
            description=descriptions.CLOSE_SESSION,
            arguments=api.arguments(["session_id"], **session),
            output=api.output("SessionView"),
            annotations=_WRITES,
        ),
        tool_entry(
            run=_interrupt,
            name="interrupt_session",
            title="Interrupt the code of a session",
            description=descriptions.INTERRUPT_SESSION,
            arguments=api.arguments(["session_id"], **session),
            output=api.output("InterruptAnswer"),
            annotations=_CHANGES,
        ),
        tool_entry(
            run=_list_files,
            name="list_files",
            title="List files of a session",
            description=descriptions.LIST_SESSION_FILES,
            arguments=api.arguments(
                ["session_id"],
                **session,
                pattern={"type": "string", "description": descriptions.FILE_PATTERN},
            ),
            output=api.output("FileListing"),
            annotations=_READS,
        ),
        tool_entry(
            run=_write_file,
            name="write_file",
            title="Write a file of a session",
            description=descriptions.WRITE_SESSION_FILE,
            arguments=api.arguments(
                ["session_id", "path"],
                **session,
                path=path,
                text={"type": "string", "description": descriptions.FILE_TEXT},
                base64={"type": "string", "description": descriptions.FILE_BASE64},
            ),
            annotations=_WRITES,
        ),
        tool_entry(
            run=_read_file,
            name="read_file",
            title="Read a file of a session",
            description=descriptions.READ_SESSION_FILE,
            arguments=api.arguments(["session_id", "path"], **session, path=path),
            annotations=_READS,
        ),
    )


async def run_cell(call: Call) -> CallToolResult:
    """Run the code of `run_python` in a session."""
    if wrong := [name for name in call.arguments if name not in SESSION_ARGUMENTS]:
        raise tool_error(
            f"{wrong[0]} cannot be combined with session_id; {_INSTEAD[wrong[0]]}",
            code="invalid_request",
            field=wrong[0],
        )
    copied = ("code", "timeout_seconds")
    request = {name: call.arguments[name] for name in copied if name in call.arguments}
    return tool_result(await call.executor.sessions.run(call.arguments["session_id"], request))


async def _open(call: Call) -> CallToolResult:
    arguments = call.arguments
    limits: Document = {"network_disabled": not arguments.get("network", False)}
    limits |= {name: arguments[name] for name in ("timeout_seconds", "memory_mb") if name in arguments}
    request: Document = {"config": limits}
    if "requirements" in arguments:
        request["requirements_txt"] = arguments["requirements"]
    copied = ("idle_timeout_seconds", "lifetime_seconds")
    request |= {name: arguments[name] for name in copied if name in arguments}
    return _state(await call.executor.sessions.open(request))


async def _close(call: Call) -> CallToolResult:
    return _state(await call.executor.sessions.close(call.arguments["session_id"]))


async def _interrupt(call: Call) -> CallToolResult:
    answer = await call.executor.sessions.interrupt(call.arguments["session_id"])
    text = "interrupted the code that runs" if answer["interrupted"] else "no code runs"
    return CallToolResult(content=[TextContent(text=text)], structured_content=answer)


async def _list_files(call: Call) -> CallToolResult:
    arguments = call.arguments
    listed = await call.executor.sessions.list_files(arguments["session_id"], arguments.get("pattern"))
    lines = [f"{file['size']} {file['path']}" for file in listed["files"]]
    if listed.get("truncated"):
        lines.append("(not all files are listed: give a narrower pattern)")
    text = "\n".join(lines) or "no files"
    return CallToolResult(content=[TextContent(text=text)], structured_content=listed)


async def _write_file(call: Call) -> CallToolResult:
    path, content = call.arguments["path"], _content(call.arguments)
    if len(content) > FILE_BYTES_MAX:
        raise tool_error(f"a file may have at most {FILE_BYTES_MAX} bytes here", code="too_large")
    await call.executor.sessions.write_file(call.arguments["session_id"], path, content)
    return CallToolResult(content=[TextContent(text=f"wrote {len(content)} bytes to {path}")])


def _content(arguments: Mapping[str, Any]) -> bytes:
    if ("text" in arguments) == ("base64" in arguments):
        raise tool_error("give either text or base64", code="invalid_request", field="text")
    if "text" in arguments:
        return str(arguments["text"]).encode()
    try:
        return base64.b64decode(arguments["base64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise tool_error(f"base64 is malformed: {error}", code="invalid_request", field="base64") from error


async def _read_file(call: Call) -> CallToolResult:
    session_id, path = call.arguments["session_id"], call.arguments["path"]
    content = await call.executor.sessions.read_file(session_id, path, FILE_BYTES_MAX)
    return CallToolResult(content=[file_content(session_file_uri(session_id, path), path, content)])


def _state(state: Document) -> CallToolResult:
    text = f"{state['id']}: {state['status']}"
    return CallToolResult(content=[TextContent(text=text)], structured_content=state)
