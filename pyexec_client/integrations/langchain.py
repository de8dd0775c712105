"""A tool for LangChain and LangGraph (`langchain-core`)."""

from __future__ import annotations

from typing import Any, Unpack

from ..client import AsyncClient
from ..errors import InvalidRequest
from ..options import RunOptions
from ..result import Result
from ..sync import Client
from .missing_package import missing_package
from .model_text import (
    CHARACTERS_MAX,
    checked_characters,
    images_of,
    rejection,
    text_of,
    tool_description,
)

try:
    from langchain_core.tools import StructuredTool, ToolException
except ModuleNotFoundError as error:
    raise missing_package("langchain-core", error) from error

Message = tuple[str | list[dict[str, str]], Result]
"""The content and the artifact of a tool message."""


def run_python_tool(
    client: Client | AsyncClient, *, max_characters: int = CHARACTERS_MAX, **options: Unpack[RunOptions]
) -> StructuredTool:
    """Return the tool `run_python`, which runs a program in a sandbox.

    With a `Client`, `invoke` and `ainvoke` work. With an `AsyncClient`, only `ainvoke` works, and cancelling it kills
    the execution. A program that fails is a tool message with status `error`; otherwise, the artifact of the message is
    the `Result`. `options` apply to each run. The middle of an output with more than `max_characters` is left out. The
    caller closes the client.
    """
    checked_characters(max_characters)
    function: dict[str, Any]
    if isinstance(client, Client):
        blocking_client = client

        def run_python(code: str) -> Message:
            try:
                return _message(blocking_client.eval(code, **options), max_characters)
            except InvalidRequest as error:
                raise ToolException(rejection(error)) from error

        function = {"func": run_python}
    else:
        async_client = client

        async def run_python_async(code: str) -> Message:
            try:
                return _message(await async_client.eval(code, **options), max_characters)
            except InvalidRequest as error:
                raise ToolException(rejection(error)) from error

        function = {"coroutine": run_python_async}
    return StructuredTool.from_function(
        **function,
        name="run_python",
        description=tool_description(options),
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _message(result: Result, max_characters: int) -> Message:
    """Return the message for a result. Raise ToolException with its content if the program failed."""
    text = text_of(result, max_characters)
    images = [
        {"type": "image", "base64": data, "mime_type": mime_type} for mime_type, data in images_of(result)
    ]
    content: str | list[dict[str, str]] = [*_text(text), *images] if images else text
    if not result.ok:
        raise ToolException(content)
    return content, result


def _text(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}] if text else []  # some models reject an empty text
