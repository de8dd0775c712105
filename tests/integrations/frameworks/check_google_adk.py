"""Check `AdkExecutor` alone, and in an agent with a scripted model."""

import base64
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult, File
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types
from pydantic import Field

from pyexec_client import Client
from pyexec_client.integrations.google_adk import AdkExecutor
from tests.integrations.frameworks.conftest import DRAW, LONG, PNG, SHORTENED

TABLE = b"name,height\nK2,8611\n"


def run(executor: AdkExecutor, code: str, *files: File) -> CodeExecutionResult:
    return executor.execute_code(None, CodeExecutionInput(code=code, input_files=list(files)))


def test_output_and_warnings_of_a_program_that_succeeds_are_no_error(client: Client) -> None:
    result = run(AdkExecutor(client), "import sys; print(6 * 7); print('slow', file=sys.stderr)")
    assert (result.stdout, result.stderr, result.exit_code) == ("42\nslow", "", 0)


def test_a_failure_is_in_stderr(client: Client) -> None:
    result = run(AdkExecutor(client), "print('before')\n1 / 0")
    assert (result.stdout, result.exit_code) == ("before\n", 1)
    assert result.stderr.startswith("before\nTraceback")
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n[exit code 1]")
    assert run(AdkExecutor(client), "raise SystemExit(3)").stderr == "[exit code 3]"


def test_the_middle_of_a_long_output_is_left_out(client: Client) -> None:
    executor = AdkExecutor(client, max_characters=10)
    assert run(executor, LONG).stdout == SHORTENED
    result = run(executor, f"{LONG}\nraise SystemExit(3)")
    assert (len(result.stdout), result.stderr) == (len(SHORTENED), f"{SHORTENED}\n[exit code 3]")


def test_the_timeout_of_the_framework_applies(client: Client) -> None:
    result = run(AdkExecutor(client, timeout_seconds=1), "while True: pass")
    assert result.exit_code == 124
    assert result.stderr.startswith("[timeout: ")


@pytest.mark.parametrize("content", [TABLE, base64.b64encode(TABLE).decode()])
def test_files_come_in_and_go_out(client: Client, content: bytes | str) -> None:
    code = "import shutil; shutil.copy('data_1_1.csv', 'copy.csv')"
    result = run(
        AdkExecutor(client, output_files=["copy.*"]), code, File("data_1_1.csv", content, "text/csv")
    )
    assert result.output_files == [File("copy.csv", TABLE, "text/csv")]


def test_images_become_files(client: Client) -> None:
    for files in ((), (File("table.csv", TABLE, "text/csv"),)):
        result = run(AdkExecutor(client), DRAW, *files)
        assert result.output_files == [File("display-1.png", PNG, "image/png")]


def test_it_keeps_no_state(client: Client) -> None:
    with pytest.raises(ValueError, match="frozen"):
        AdkExecutor(client).stateful = True


class ScriptedModel(BaseLlm):
    """Give these answers, one after another."""

    answers: list[str]
    requests: list[Any] = Field(default_factory=list)

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self.requests.append(llm_request.model_copy(deep=True))
        text = self.answers[len(self.requests) - 1]
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=text)]))


@pytest.mark.anyio
async def test_an_agent_corrects_its_code(client: Client) -> None:
    answers = [
        "```python\n1 / 0\n```",
        "```python\nopen('a.csv', 'w').write('6'); print(6 * 7)\n```",
        "It is 42.",
    ]
    model = ScriptedModel(model="scripted", answers=answers)
    agent = LlmAgent(name="coder", model=model, code_executor=AdkExecutor(client, output_files=["*.csv"]))
    runner = InMemoryRunner(agent)
    events = await runner.run_debug("What is six times seven?", quiet=True)
    results = [
        part.code_execution_result
        for event in events
        for part in event.content.parts
        if part.code_execution_result
    ]
    assert [result.outcome.value for result in results] == ["OUTCOME_FAILED", "OUTCOME_OK"]
    assert "ZeroDivisionError" in results[0].output
    assert "42" in results[1].output
    assert [name for event in events for name in event.actions.artifact_delta] == ["a.csv"]
    assert events[-1].content.parts[0].text == "It is 42."
