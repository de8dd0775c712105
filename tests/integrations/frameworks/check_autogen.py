"""Check `AutoGenExecutor` alone, and in an agent with a scripted model."""

import asyncio

import anyio
import pytest
from autogen_agentchat.agents import CodeExecutorAgent
from autogen_agentchat.messages import CodeExecutionEvent
from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock, CodeResult
from autogen_ext.models.replay import ReplayChatCompletionClient

from pyexec_client import AsyncClient
from pyexec_client.integrations.autogen import AutoGenExecutor
from tests.integrations.frameworks.conftest import LONG, SHORTENED

pytestmark = pytest.mark.anyio


async def run(executor: AutoGenExecutor, *blocks: str, language: str = "python") -> CodeResult:
    token = CancellationToken()
    async with executor:
        return await executor.execute_code_blocks([CodeBlock(code, language) for code in blocks], token)


async def test_blocks_of_a_message_share_variables_and_files(async_client: AsyncClient) -> None:
    executor = AutoGenExecutor(async_client)
    result = await run(
        executor, "x = 6\nopen('kept', 'w').write('file')", "print(x * 7, open('kept').read())"
    )
    assert (result.exit_code, result.output) == (0, "42 file")
    result = await run(executor, "print(x)", language="Python")
    assert result.exit_code == 1
    assert "NameError: name 'x' is not defined" in result.output


async def test_a_failure_has_its_exit_code_and_what_was_printed(async_client: AsyncClient) -> None:
    result = await run(
        AutoGenExecutor(async_client), "print('before')\nraise SystemExit(3)", "print('never')"
    )
    assert (result.exit_code, result.output) == (3, "before\n[exit code 3]")


async def test_the_middle_of_a_long_output_is_left_out(async_client: AsyncClient) -> None:
    assert (await run(AutoGenExecutor(async_client, max_characters=10), LONG)).output == SHORTENED


async def test_a_timeout_is_a_result(async_client: AsyncClient) -> None:
    result = await run(AutoGenExecutor(async_client, timeout=1), "while True: pass")
    assert result.exit_code == 124
    assert result.output.startswith("[timeout: ")


async def test_another_language_is_refused(async_client: AsyncClient) -> None:
    result = await run(AutoGenExecutor(async_client), "ls", language="bash")
    assert (result.exit_code, result.output) == (1, "cannot run 'bash' code; only python is allowed")


async def test_cancelling_the_token_kills_the_execution(async_client: AsyncClient) -> None:
    token = CancellationToken()
    block = CodeBlock("import time; time.sleep(3600)", "python")
    running = asyncio.create_task(AutoGenExecutor(async_client).execute_code_blocks([block], token))
    with anyio.fail_after(60):
        executions: list[str] = []
        while not executions:
            executions = [each.execution_id async for each in async_client.list(status="running")]
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await async_client.wait(executions[0])).status == "killed"


async def test_an_agent_corrects_its_code(async_client: AsyncClient) -> None:
    decision = '{"reason": "It divides by zero.", "retry": true}'
    answers = ["```python\n1 / 0\n```", decision, "```python\nprint(6 * 7)\n```", "The answer is 42."]
    model = ReplayChatCompletionClient(answers, model_info=MODEL)
    agent = CodeExecutorAgent(
        "coder", code_executor=AutoGenExecutor(async_client), model_client=model, max_retries_on_error=1
    )
    messages = [message async for message in agent.run_stream(task="What is six times seven?")]
    results = [message.result for message in messages if isinstance(message, CodeExecutionEvent)]
    assert [result.exit_code for result in results] == [1, 0]
    assert "ZeroDivisionError" in results[0].output
    assert results[1].output == "42"


MODEL = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "family": "unknown",
    "structured_output": True,
}
