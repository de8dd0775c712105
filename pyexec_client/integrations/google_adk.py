"""A code executor for Google's Agent Development Kit (`google-adk`)."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..result import Result
from ..sync import Client
from .missing_package import missing_package
from .model_text import (
    CHARACTERS_MAX,
    checked_characters,
    exit_code,
    images_of,
    rejection,
    shortened,
    text_of,
)

try:
    from google.adk.agents.invocation_context import InvocationContext
    from google.adk.code_executors.base_code_executor import BaseCodeExecutor
    from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult, File
    from pydantic import Field
except ModuleNotFoundError as error:
    raise missing_package("google-adk", error) from error

_ENTRYPOINT = "main.py"


class AdkExecutor(BaseCodeExecutor):
    """Run the code blocks of a model's answer in a sandbox. Each block runs in a new interpreter.

    Keyword arguments are fields of `BaseCodeExecutor`, such as `error_retry_attempts`, or options of `Client.run`.
    Files that match `output_files`, and displayed images, become artifacts. The middle of an output with more than
    `max_characters` is left out. The caller closes the client.

        agent = LlmAgent(name="analyst", model=…, code_executor=AdkExecutor(client, output_files=["*.csv"]))
    """

    stateful: bool = Field(default=False, frozen=True, exclude=True)

    def __init__(self, client: Client, *, max_characters: int = CHARACTERS_MAX, **arguments: Any) -> None:
        fields = {name: arguments.pop(name) for name in arguments.keys() & type(self).model_fields}
        super().__init__(**fields)
        self._client = client
        self._max_characters = checked_characters(max_characters)
        self._options = {"timeout": self.timeout_seconds, "capture_displays": True, **arguments}

    def execute_code(
        self,
        invocation_context: InvocationContext,  # noqa: ARG002
        code_execution_input: CodeExecutionInput,
    ) -> CodeExecutionResult:
        """Run the code. ADK takes any text in `stderr` for a failure, and shows the model nothing else then."""
        code, inputs = code_execution_input.code, code_execution_input.input_files
        try:
            result = self._run(code, inputs)
        except InvalidRequest as error:
            return CodeExecutionResult(stderr=rejection(error), exit_code=1)
        text = text_of(result, self._max_characters)
        return CodeExecutionResult(
            stdout=text if result.ok else shortened(result.stdout, self._max_characters),
            stderr="" if result.ok else text,
            exit_code=exit_code(result),
            output_files=list(self._output_files(result)),
        )

    def _run(self, code: str, inputs: Sequence[File]) -> Result:
        if inputs:
            files: dict[str, str | bytes] = {
                _ENTRYPOINT: code,
                **{file.name: _content(file) for file in inputs},
            }
            return self._client.run(files, entrypoint=_ENTRYPOINT, **self._options)
        return self._client.eval(code, **self._options)

    def _output_files(self, result: Result) -> Iterator[File]:
        for file in result.files:
            content = self._client.file(result.execution_id, file.path)
            mime_type = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
            yield File(name=file.path, content=content, mime_type=mime_type)
        for number, (mime_type, data) in enumerate(images_of(result), 1):
            name = f"display-{number}{mimetypes.guess_extension(mime_type)}"
            yield File(name=name, content=base64.b64decode(data), mime_type=mime_type)


def _content(file: File) -> bytes:
    return base64.b64decode(file.content) if isinstance(file.content, str) else file.content
