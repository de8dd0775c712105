"""Check the tool for the OpenAI Agents SDK alone, and in an agent with a scripted model."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    ToolOutputImage,
    ToolOutputText,
    Usage,
)
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from pyexec_client import AsyncClient
from pyexec_client.integrations.openai_agents import run_python_tool
from tests.integrations.frameworks.conftest import DRAW, LONG, PNG, SHORTENED

pytestmark = pytest.mark.anyio


async def run(tool: FunctionTool, code: str) -> list[ToolOutputText | ToolOutputImage]:
    arguments = json.dumps({"code": code})
    context = ToolContext(None, tool_name=tool.name, tool_call_id="call_1", tool_arguments=arguments)
    return await tool.on_invoke_tool(context, arguments)


async def test_it_takes_source_text_and_says_what_the_sandbox_allows(async_client: AsyncClient) -> None:
    tool = run_python_tool(async_client)
    assert (tool.name, tool.params_json_schema["required"]) == ("run_python", ["code"])
    assert tool.params_json_schema["properties"]["code"]["description"] == "The source text of the program."
    assert "no network" in tool.description


async def test_the_output_has_the_value(async_client: AsyncClient) -> None:
    tool = run_python_tool(async_client)
    assert await run(tool, "print('printed')\n6 * 7") == [ToolOutputText(text="printed\n42")]


async def test_a_failure_is_text_with_the_traceback(async_client: AsyncClient) -> None:
    (output,) = await run(run_python_tool(async_client), "1 / 0")
    assert output.text.startswith("Traceback")
    assert output.text.endswith("[exit code 1]")


async def test_the_middle_of_a_long_output_is_left_out(async_client: AsyncClient) -> None:
    tool = run_python_tool(async_client, max_characters=10)
    assert await run(tool, LONG) == [ToolOutputText(text=SHORTENED)]


async def test_a_timeout_is_text(async_client: AsyncClient) -> None:
    (output,) = await run(run_python_tool(async_client, timeout=1), "while True: pass")
    assert output.text.startswith("[timeout: ")


async def test_images_are_outputs(async_client: AsyncClient) -> None:
    text, image = await run(run_python_tool(async_client), DRAW)
    assert text == ToolOutputText(text="drawn")
    assert image.image_url == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


class ScriptedModel(Model):
    """Give these outputs, one after another; keep what the agent sent."""

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = iter(outputs)
        self.inputs: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        self.inputs.append(input)
        return ModelResponse(output=[next(self.outputs)], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("the agent does not stream")


def call(code: str, number: int) -> ResponseFunctionToolCall:
    arguments = json.dumps({"code": code})
    return ResponseFunctionToolCall(
        type="function_call", name="run_python", call_id=f"call_{number}", arguments=arguments
    )


async def test_an_agent_corrects_its_code(async_client: AsyncClient) -> None:
    answer = ResponseOutputMessage(
        id="1",
        type="message",
        role="assistant",
        status="completed",
        content=[ResponseOutputText(type="output_text", text="It is 42.", annotations=[])],
    )
    model = ScriptedModel([call("1 / 0", 1), call("6 * 7", 2), answer])
    agent = Agent(name="coder", model=model, tools=[run_python_tool(async_client)])
    config = RunConfig(tracing_disabled=True)
    done = await Runner.run(agent, "What is six times seven?", run_config=config)
    assert done.final_output == "It is 42."
    outputs = [item["output"] for item in model.inputs[-1] if item.get("type") == "function_call_output"]
    assert "ZeroDivisionError" in outputs[0][0]["text"]
    assert outputs[1][0]["text"] == "42"
