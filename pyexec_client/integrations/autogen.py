"""A code executor for AutoGen (`autogen-core`, `autogen-agentchat`)."""

from __future__ import annotations

import asyncio
from typing import Unpack

from ..client import AsyncClient
from ..errors import InvalidRequest
from ..options import RunOptions
from .missing_package import missing_package
from .model_text import CHARACTERS_MAX, checked_characters, exit_code, rejection, text_of

try:
    from autogen_core import CancellationToken
    from autogen_core.code_executor import CodeBlock, CodeExecutor, CodeResult
except ModuleNotFoundError as error:
    raise missing_package("autogen-core", error) from error

_PYTHON = ("python", "py", "python3")


class AutoGenExecutor(CodeExecutor):
    """Run the code blocks of a message in a sandbox.

    The blocks of one message run as one program, in order, and share variables and files. Nothing remains for the next
    message. `options` apply to each run. The middle of an output with more than `max_characters` is left out. The
    caller closes the client.

        executor = AutoGenExecutor(AsyncClient("http://localhost:8080"), timeout=30)
        agent = CodeExecutorAgent("executor", code_executor=executor)
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        max_characters: int = CHARACTERS_MAX,
        **options: Unpack[RunOptions],
    ) -> None:
        self._client = client
        self._max_characters = checked_characters(max_characters)
        self._options = options

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CodeResult:
        """Run the blocks. A timeout is a result with exit code 124. Cancelling the token kills the execution."""
        for block in code_blocks:
            if block.language.lower() not in _PYTHON:
                return CodeResult(
                    exit_code=1, output=f"cannot run {block.language!r} code; only python is allowed"
                )
        program = "\n".join(block.code for block in code_blocks)
        run = asyncio.ensure_future(self._client.eval(program, **self._options))
        cancellation_token.link_future(run)
        try:
            result = await run
        except InvalidRequest as error:
            return CodeResult(exit_code=1, output=rejection(error))
        return CodeResult(exit_code=exit_code(result), output=text_of(result, self._max_characters))

    async def start(self) -> None:
        """Do nothing: each message runs in a new sandbox."""

    async def stop(self) -> None:
        """Do nothing: no sandbox is left."""

    async def restart(self) -> None:
        """Do nothing: there is no state to reset."""
