"""The tools: what each one takes, and what it does with an executor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult, TextContent, ToolAnnotations

from pyexec.mcp import descriptions
from pyexec.mcp.argument_terms import with_argument_terms_in_list
from pyexec.mcp.content import execution_uri, file_content, state_result, tool_result
from pyexec.mcp.executor import Document
from pyexec.mcp.schemas import ApiSchemas, Schema
from pyexec.mcp.session_tools import has_sessions, run_cell, session_id_of, session_tools
from pyexec.mcp.tool_entry import Call, ToolEntry, tool_entry

WAIT_SECONDS_MAX = 60
LIST_MAX = 100
FILE_BYTES_MAX = 8 * 1024 * 1024
"""The largest file that is sent as content. Larger ones are for the HTTP API."""


def create_tools(openapi: Schema) -> tuple[ToolEntry, ...]:
    """Return the tools of the server that this OpenAPI document describes."""
    api = ApiSchemas(openapi)
    return (*_run_tools(api), *_execution_tools(api), *session_tools(api))


_WAIT: Schema = {
    "type": "number",
    "minimum": 0,
    "maximum": WAIT_SECONDS_MAX,
    "default": 0,
    "description": "Seconds to wait for the end, if the execution has not ended.",
}
_LIMIT: Schema = {
    "type": "integer",
    "minimum": 1,
    "maximum": LIST_MAX,
    "default": 20,
    "description": "Maximum number of executions.",
}
_CURSOR: Schema = {
    "type": "string",
    "description": "The `next_cursor` of the page before. Default: the newest executions.",
}
_RUNS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_KILLS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


def _run_tools(api: ApiSchemas) -> tuple[ToolEntry, ...]:
    """Return the tools that start a run."""
    in_session = {"session_id": session_id_of(api, descriptions.RUN_IN_SESSION)} if has_sessions(api) else {}
    capture = {"capture_displays": True} if api.has("Metadata", "capture_displays") else {}

    async def submit(call: Call) -> CallToolResult:
        request = _request(call.arguments)
        files = request.pop("files")
        execution_id = await call.executor.submit({**request, **capture}, files)
        return _structured({"execution_id": execution_id}, f"submitted {execution_id}")

    return (
        tool_entry(
            run=_run,
            name="run_python",
            title="Run Python code",
            description=descriptions.run_python(api),
            arguments=api.arguments(["code"], **_run_properties(api, descriptions.CODE), **in_session),
            output=api.output("Result"),
            annotations=_RUNS,
        ),
        tool_entry(
            run=submit,
            name="submit_python",
            title="Submit Python code",
            description=descriptions.SUBMIT,
            arguments=api.arguments(["code"], **_run_properties(api, descriptions.SUBMITTED_CODE)),
            output=api.output("Accepted"),
            annotations=_RUNS,
        ),
    )


def _execution_tools(api: ApiSchemas) -> tuple[ToolEntry, ...]:
    """Return the tools for executions that have been accepted."""
    execution = {"execution_id": api.field("Result", "execution_id")}
    path = api.field("OutputFile", "path")
    status = api.field("Summary", "status")
    return (
        tool_entry(
            run=_get,
            name="get_execution",
            title="Get an execution",
            description=descriptions.GET,
            arguments=api.arguments(["execution_id"], **execution, wait_seconds=_WAIT),
            output=api.output("Result"),
            annotations=_READS,
        ),
        tool_entry(
            run=_kill,
            name="kill_execution",
            title="Kill an execution",
            description=descriptions.KILL,
            arguments=api.arguments(["execution_id"], **execution),
            output=api.output("KillAnswer"),
            annotations=_KILLS,
        ),
        tool_entry(
            run=_list,
            name="list_executions",
            title="List executions",
            description=descriptions.LIST,
            arguments=api.arguments([], status=status, limit=_LIMIT, cursor=_CURSOR),
            output=api.output("Listing"),
            annotations=_READS,
        ),
        tool_entry(
            run=_read_file,
            name="read_output_file",
            title="Read an output file",
            description=descriptions.READ_FILE,
            arguments=api.arguments(["execution_id", "path"], **execution, path=path),
            annotations=_READS,
        ),
    )


def _run_properties(api: ApiSchemas, code: str) -> dict[str, Schema]:
    """Return the arguments of a run; `code` describes the source code. Each has the schema of the API's field."""
    return {
        "code": api.field("EvalRequest", "code", description=code),
        "files": api.field(
            "EvalRequest", "files", description=descriptions.FILES, examples=descriptions.FILES_EXAMPLES
        ),
        "requirements": api.field("EvalRequest", "requirements_txt"),
        "inline_requirements": api.field(
            "EvalRequest", "inline_requirements", description=descriptions.INLINE_REQUIREMENTS
        ),
        "stdin": api.field("EvalRequest", "stdin"),
        "timeout_seconds": api.field("RequestedLimits", "timeout_seconds"),
        "network": {"type": "boolean", "default": False, "description": descriptions.NETWORK},
        "output_files": api.field("EvalRequest", "output_files"),
    }


def _request(arguments: Mapping[str, Any]) -> Document:
    """Convert the arguments of a run to the fields of the API. The code is the file main.py."""
    limits = {"network_disabled": not arguments.get("network", False)}
    if "timeout_seconds" in arguments:
        limits["timeout_seconds"] = arguments["timeout_seconds"]
    request: Document = {
        "files": [{"name": "main.py", "content": arguments["code"]}, *arguments.get("files", ())],
        "entrypoint": "main.py",
        "config": limits,
    }
    if "requirements" in arguments:
        request["requirements_txt"] = arguments["requirements"]
    same = ("inline_requirements", "stdin", "output_files")
    request |= {name: arguments[name] for name in same if name in arguments}
    return request


async def _run(call: Call) -> CallToolResult:
    if "session_id" in call.arguments:
        return await run_cell(call)
    request = {**_request(call.arguments), "eval_last_expr": True}
    return tool_result(await call.executor.run(request, call.call_id, call.on_progress))


async def _get(call: Call) -> CallToolResult:
    wait = call.arguments.get("wait_seconds", 0)
    return state_result(await call.executor.get(call.arguments["execution_id"], wait))


async def _kill(call: Call) -> CallToolResult:
    execution_id = call.arguments["execution_id"]
    status = await call.executor.kill(execution_id)
    return _structured({"status": status}, f"{execution_id}: {status}")


async def _list(call: Call) -> CallToolResult:
    get = call.arguments.get
    found = await call.executor.page(get("status"), get("limit", 20), get("cursor"))
    page = with_argument_terms_in_list(found)
    return _structured(page, json.dumps(page))


async def _read_file(call: Call) -> CallToolResult:
    execution_id, path = call.arguments["execution_id"], call.arguments["path"].removeprefix("/work/")
    content = await call.executor.read_file(execution_id, path, FILE_BYTES_MAX)
    uri = execution_uri(execution_id, "files", path)
    return CallToolResult(content=[file_content(uri, path, content)])


def _structured(answer: Document, text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], structured_content=answer)
