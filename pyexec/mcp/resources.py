"""Resources: executions, their output and their files, by URI."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from mcp_types import (
    BlobResourceContents,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from pyexec.mcp.argument_terms import with_argument_terms
from pyexec.mcp.content import execution_uri, resource_contents
from pyexec.mcp.executor import Document, Executor
from pyexec.mcp.tools import FILE_BYTES_MAX

PAGE_SIZE = 50
_URI = re.compile(
    r"pyexec://executions/(?P<id>[^/]+)(/(?P<stream>stdout|stderr)|/files/(?P<path>.+))?", re.DOTALL
)
_BASE = "pyexec://executions/{id}"

TEMPLATES = (
    ResourceTemplate(
        uri_template=_BASE,
        name="execution",
        description="Result of an execution, as JSON.",
        mime_type="application/json",
    ),
    ResourceTemplate(
        uri_template=f"{_BASE}/stdout",
        name="stdout",
        description="Standard output of an execution.",
        mime_type="text/plain",
    ),
    ResourceTemplate(
        uri_template=f"{_BASE}/stderr",
        name="stderr",
        description="Standard error of an execution.",
        mime_type="text/plain",
    ),
    ResourceTemplate(
        uri_template=f"{_BASE}/files/{{path}}",
        name="output file",
        description="An output file of an execution that has ended.",
    ),
)


class UnknownResource(Exception):
    """No resource has this URI."""


async def list_resources(executor: Executor, cursor: str | None) -> tuple[list[Resource], str | None]:
    """Return the newest executions as resources, and the cursor of the next page."""
    page = await executor.page(None, PAGE_SIZE, cursor)
    return [_resource(summary) for summary in page["executions"]], page.get("next_cursor")


def _resource(summary: Document) -> Resource:
    return Resource(
        uri=execution_uri(summary["execution_id"]),
        name=summary["execution_id"],
        description=f"{summary['status']}, created {summary['created_at']}",
        mime_type="application/json",
    )


async def read_resource(executor: Executor, uri: str) -> TextResourceContents | BlobResourceContents:
    """Return the contents of a resource. Raises `UnknownResource` and `ToolError`."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise UnknownResource(f"no resource has the URI {uri[:100]!r}")
    execution_id, stream, path = unquote(found["id"]), found["stream"], found["path"]
    if path is not None:
        path = unquote(path)
        return resource_contents(uri, path, await executor.read_file(execution_id, path, FILE_BYTES_MAX))
    result = with_argument_terms(await executor.get(execution_id, 0))
    if stream is not None:
        return TextResourceContents(uri=uri, mime_type="text/plain", text=result.get(stream, ""))
    return TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(result))
