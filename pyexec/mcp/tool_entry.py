"""A tool: its definition for clients, and the function that carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen
from mcp_types import CallToolResult, Tool, ToolAnnotations

from pyexec.mcp.executor import Executor, OnProgress
from pyexec.mcp.schemas import Schema


@frozen(kw_only=True)
class Call:
    """One call of a tool: the caller's executor, the checked arguments, and the function to call with progress.

    `call_id` names the call for a later cancellation; None if the transport itself cancels calls."""

    executor: Executor
    arguments: Mapping[str, Any]
    call_id: str | None = None
    on_progress: OnProgress | None = None


@frozen(kw_only=True)
class ToolEntry:
    """A tool as clients see it, and the function that carries it out."""

    tool: Tool
    run: Callable[[Call], Awaitable[CallToolResult]]


def tool_entry(
    *,
    run: Callable[[Call], Awaitable[CallToolResult]],
    name: str,
    title: str,
    description: str,
    arguments: Schema,
    annotations: ToolAnnotations,
    output: Schema | None = None,
) -> ToolEntry:
    """Return a tool with this definition."""
    tool = Tool(
        name=name,
        title=title,
        description=description,
        input_schema=arguments,
        output_schema=output,
        annotations=annotations,
    )
    return ToolEntry(tool=tool, run=run)
