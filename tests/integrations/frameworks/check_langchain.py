"""Check the tool for LangChain alone, and in an agent with a scripted model."""

import base64
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool

from pyexec_client import AsyncClient, Client
from pyexec_client.integrations.langchain import run_python_tool
from tests.integrations.frameworks.conftest import DRAW, LONG, PNG, SHORTENED


def call(code: str, number: int = 1) -> Any:
    return {"type": "tool_call", "name": "run_python", "args": {"code": code}, "id": f"call_{number}"}


def test_it_takes_source_text_and_says_what_the_sandbox_allows(client: Client) -> None:
    tool = run_python_tool(client)
    assert (tool.name, list(tool.args)) == ("run_python", ["code"])
    assert "no network" in tool.description
    assert "no network" not in run_python_tool(client, network=True).description


def test_a_message_has_the_output_and_the_value(client: Client) -> None:
    message = run_python_tool(client).invoke(call("print('printed')\n6 * 7"))
    assert (message.content, message.status) == ("printed\n42", "success")
    assert message.artifact.ok


def test_a_failure_is_an_error(client: Client) -> None:
    message = run_python_tool(client).invoke(call("print('before')\n1 / 0"))
    assert message.status == "error"
    assert message.content.startswith("before\nTraceback")
    assert message.content.endswith("[exit code 1]")


def test_the_middle_of_a_long_output_is_left_out(client: Client) -> None:
    assert run_python_tool(client, max_characters=10).invoke(call(LONG)).content == SHORTENED
    assert len(run_python_tool(client).invoke(call(LONG)).content) < 50_100


def test_a_timeout_is_an_error(client: Client) -> None:
    message = run_python_tool(client, timeout=1).invoke(call("while True: pass"))
    assert message.status == "error"
    assert message.content.startswith("[timeout: ")


@pytest.mark.anyio
async def test_it_is_asynchronous_with_either_client(client: Client, async_client: AsyncClient) -> None:
    for either in (client, async_client):
        assert (await run_python_tool(either).ainvoke(call("6 * 7"))).content == "42"


def test_the_model_learns_why_a_program_was_rejected(client: Client) -> None:
    message = run_python_tool(client).invoke(call("# /// script\n# requires-python = '3.12'\n# ///"))
    assert message.status == "error"
    assert "requires-python" in message.content


def test_images_are_content(client: Client) -> None:
    message = run_python_tool(client).invoke(call(DRAW))
    text, image = message.content_blocks
    assert text["text"] == "drawn"
    assert (image["mime_type"], base64.b64decode(image["base64"])) == ("image/png", PNG)


class ScriptedModel(GenericFakeChatModel):
    """LangChain's own fake model, in an agent."""

    def bind_tools(self, tools: list[BaseTool], **_: Any) -> "ScriptedModel":
        return self


def test_an_agent_corrects_its_code(client: Client) -> None:
    codes = ["1 / 0", "6 * 7"]
    calls = [AIMessage("", tool_calls=[call(code, number)]) for number, code in enumerate(codes)]
    model = ScriptedModel(messages=iter([*calls, AIMessage("It is 42.")]))
    agent = create_agent(model, [run_python_tool(client)])
    messages = agent.invoke({"messages": [("user", "What is six times seven?")]})["messages"]
    results = [message for message in messages if isinstance(message, ToolMessage)]
    assert [result.status for result in results] == ["error", "success"]
    assert "ZeroDivisionError" in results[0].content
    assert (results[1].content, messages[-1].content) == ("42", "It is 42.")
