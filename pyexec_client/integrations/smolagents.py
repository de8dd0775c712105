"""A Python executor for `CodeAgent` of smolagents."""

from __future__ import annotations

import base64
import inspect
import io
from typing import Any, Unpack

from ..errors import InvalidRequest
from ..options import RunOptions
from ..sync import Client
from .missing_package import missing_package
from .model_text import CHARACTERS_MAX, checked_characters, images_of, rejection, shortened, text_of

try:
    import PIL.Image
    from smolagents import Tool, serialization
    from smolagents.local_python_executor import CodeOutput, InterpreterError, PythonExecutor
    from smolagents.tools import get_tools_definition_code
except ModuleNotFoundError as error:
    raise missing_package("smolagents", error) from error

_FINAL_ANSWER = """
class FinalAnswer(BaseException): pass
_answer = final_answer
def final_answer(*args, **kwargs): raise FinalAnswer(SafeSerializer.dumps(_answer(*args, **kwargs)))
"""
"""Ends a step with the answer, as text on one line, in an exception."""
_PACKAGES = {"PIL": "pillow"}
"""Names of packages that differ from the import that a tool lists as its requirement."""


class SmolagentsExecutor(PythonExecutor):
    """Run each step of a `CodeAgent` in a sandbox.

    The agent's tools, its `additional_args` and `final_answer` work in every step. Each step runs in a new interpreter:
    variables and files of earlier steps are gone, so tell the model. `options` apply to each step. The middle of an
    output with more than `max_characters` is left out. The caller closes the client.

        agent = CodeAgent(tools=[], model=model, executor=SmolagentsExecutor(client, timeout=30))
    """

    def __init__(
        self, client: Client, *, max_characters: int = CHARACTERS_MAX, **options: Unpack[RunOptions]
    ) -> None:
        self._client = client
        self._max_characters = checked_characters(max_characters)
        self._options = options
        self._variables = self._tools = self._requirements = ""

    def send_tools(self, tools: dict[str, Tool]) -> None:
        """Define the tools in each later step, and install the packages that they need."""
        needed = {name for tool in tools.values() for name in tool.to_dict()["requirements"]} - {"smolagents"}
        self._requirements = "\n".join(sorted(_PACKAGES.get(name, name) for name in needed))
        self._tools = get_tools_definition_code(tools) + (_FINAL_ANSWER if "final_answer" in tools else "")

    def send_variables(self, variables: dict[str, Any]) -> None:
        """Define the variables in each later step. Raise SerializationError for a value that is not plain data."""
        values = serialization.SafeSerializer.dumps(variables)
        self._variables = f"globals().update(SafeSerializer.loads({values!r}))\n"

    def __call__(self, code_action: str) -> CodeOutput:
        """Run a step. Raise InterpreterError with the output and the traceback if it fails."""
        files = {
            "main.py": f"from agent_definitions import *\n{code_action}",
            "agent_definitions.py": f"from agent_data import SafeSerializer\n{self._variables}{self._tools}",
            "agent_data.py": inspect.getsource(serialization),
        }
        requirements = "\n".join(filter(None, [self._options.get("requirements"), self._requirements]))
        options: RunOptions = {**self._options, "entrypoint": "main.py", "requirements": requirements or None}
        try:
            result = self._client.eval(files, **options)
        except InvalidRequest as error:
            raise InterpreterError(rejection(error)) from error
        if result.error_type and result.error_type.endswith("FinalAnswer"):
            # Take the answer from the end of stderr, because `result.error` may be cut.
            answer = serialization.SafeSerializer.loads(result.stderr.rpartition("FinalAnswer: ")[2].strip())
            return CodeOutput(answer, self._shortened(result.stdout), is_final_answer=True)
        if not result.ok:
            raise InterpreterError(text_of(result, self._max_characters))
        images = [PIL.Image.open(io.BytesIO(base64.b64decode(data))) for _, data in images_of(result)]
        value = None if result.result is None else self._shortened(result.result)
        output = images[0] if images and result.result in (None, "None") else value
        logs = self._shortened(result.stdout) + self._shortened(result.stderr)
        return CodeOutput(output, logs, is_final_answer=False)

    def _shortened(self, text: str) -> str:
        return shortened(text, self._max_characters)
