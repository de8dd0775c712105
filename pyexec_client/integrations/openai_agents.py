"""A function tool for the OpenAI Agents SDK (`openai-agents`)."""

from __future__ import annotations

from typing import Unpack

from ..client import AsyncClient
from ..errors import InvalidRequest
from ..options import RunOptions
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
    from agents import FunctionTool, ToolOutputImage, ToolOutputText, function_tool
except ModuleNotFoundError as error:
    raise missing_package("openai-agents", error) from error


def run_python_tool(
    client: AsyncClient, *, max_characters: int = CHARACTERS_MAX, **options: Unpack[RunOptions]
) -> FunctionTool:
    """Return the tool `run_python`, which runs a program in a sandbox.

    A program that fails is an output with its traceback and exit code. Displayed images are image outputs. `options`
    apply to each run. The middle of an output with more than `max_characters` is left out. The caller closes the
    client.

        agent = Agent(name="analyst", tools=[run_python_tool(AsyncClient("http://localhost:8080"), timeout=30)])
    """
    checked_characters(max_characters)

    @function_tool(description_override=tool_description(options))
    async def run_python(code: str) -> list[ToolOutputText | ToolOutputImage]:
        """Run the program.

        Args:
            code: The source text of the program.
        """
        try:
            result = await client.eval(code, **options)
        except InvalidRequest as error:
            return [ToolOutputText(text=rejection(error))]
        images = [
            ToolOutputImage(image_url=f"data:{mime_type};base64,{data}")
            for mime_type, data in images_of(result)
        ]
        return [ToolOutputText(text=text_of(result, max_characters)), *images]

    return run_python
