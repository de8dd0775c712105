"""Check `SmolagentsExecutor` alone, and in an agent with a scripted model."""

import io
from typing import Any

import PIL.Image
import pytest
from smolagents import CodeAgent, FinalAnswerTool, Model, tool
from smolagents.local_python_executor import CodeOutput, InterpreterError
from smolagents.models import ChatMessage
from smolagents.monitoring import LogLevel

from pyexec_client import Client
from pyexec_client.integrations.smolagents import SmolagentsExecutor
from tests.integrations.frameworks.conftest import DRAW, LONG, PNG, SHORTENED


@tool
def height_of(mountain: str) -> int:
    """Return the height of a mountain.

    Args:
        mountain: The name of the mountain.
    """
    return {"K2": 8611}[mountain]


def test_a_step_has_its_output_and_value(client: Client) -> None:
    executor = SmolagentsExecutor(client)
    assert executor("print('printed')\n6 * 7") == CodeOutput("42", "printed\n", is_final_answer=False)


def test_the_middle_of_a_long_output_is_left_out(client: Client) -> None:
    executor = SmolagentsExecutor(client, max_characters=10)
    assert executor(LONG.replace(")", ", end='')")).logs == SHORTENED
    assert executor("'a' * 99").output == "'aaaa\n… 91 characters left out …\naaaa'"


def test_tools_and_variables_work_in_every_step(client: Client) -> None:
    executor = SmolagentsExecutor(client)
    executor.send_variables({"names": ["K2"], "raw": b"\0"})
    executor.send_tools({"height_of": height_of})
    for _ in range(2):
        assert executor("height_of(names[0]) + len(raw)").output == "8612"


@tool
def version_of_six() -> str:
    """Return the version of the package six."""
    import six

    return six.__version__


def test_packages_of_tools_are_installed(client: Client) -> None:
    executor = SmolagentsExecutor(client)
    executor.send_tools({"version_of_six": version_of_six})
    assert executor("version_of_six()").output.startswith("'1.")


def test_variables_of_an_earlier_step_are_gone(client: Client) -> None:
    executor = SmolagentsExecutor(client)
    executor("x = 1")
    with pytest.raises(InterpreterError, match="NameError: name 'x' is not defined"):
        executor("print(x)")


@pytest.mark.parametrize("answer", [42, "two\nlines: é", {"a": [1.5, None]}, "x" * 200_000])
def test_the_final_answer_arrives_as_an_object(client: Client, answer: Any) -> None:
    executor = SmolagentsExecutor(client)
    executor.send_tools({"final_answer": FinalAnswerTool()})
    output = executor(f"print('done')\nfinal_answer({answer!r})")
    assert output == CodeOutput(answer, "done\n", is_final_answer=True)


def test_a_failure_has_what_was_printed_and_the_traceback(client: Client) -> None:
    with pytest.raises(
        InterpreterError, match=r"(?s)^before\nTraceback.*ZeroDivisionError.*\[exit code 1\]$"
    ):
        SmolagentsExecutor(client)("print('before')\n1 / 0")
    with pytest.raises(InterpreterError, match=r"^\[timeout: "):
        SmolagentsExecutor(client, timeout=1)("while True: pass")


def test_an_image_is_the_output(client: Client) -> None:
    output = SmolagentsExecutor(client)(DRAW).output
    assert output == PIL.Image.open(io.BytesIO(PNG))


class ScriptedModel(Model):
    """Give these answers, one after another."""

    def __init__(self, *codes: str) -> None:
        super().__init__(model_id="scripted")
        self.codes = iter(codes)

    def generate(self, messages: list[ChatMessage], **_: Any) -> ChatMessage:
        return ChatMessage(role="assistant", content=f"Thought: …\n<code>\n{next(self.codes)}\n</code>")


def test_an_agent_corrects_its_code_and_runs_again(client: Client) -> None:
    codes = ["print(1 / 0)", "final_answer(height_of('K2') * factor)"]
    agent = CodeAgent(
        tools=[height_of],
        model=ScriptedModel(*codes, *codes),
        executor=SmolagentsExecutor(client),
        verbosity_level=LogLevel.OFF,
    )
    for _ in range(2):
        assert agent.run("How high is K2, doubled?", additional_args={"factor": 2}) == 17222
        assert "ZeroDivisionError" in str(agent.memory.steps[1].error)
