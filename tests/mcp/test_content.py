"""The content that a model gets for a result. No server is needed."""

from typing import Any

import pytest
from mcp.client.streamable_http import DEFAULT_MAX_SSE_EVENT_SIZE
from mcp_types import ImageContent, TextContent

from pyexec.domain.missing_module import CELL_MODULE_HINT, MODULE_HINT
from pyexec.domain.outcome import CELL_DISK_HINT, CELL_NETWORK_HINT, DISK_HINT, NETWORK_HINT, STDIN_HINT
from pyexec.mcp.content import (
    DISPLAY_LEFT_OUT,
    TEXT_CHARACTERS_MAX,
    file_content,
    tool_result,
)
from pyexec.mcp.executor import DISPLAY_VALUES_MAX, tool_error

PNG = "iVBORw0KGgo="


def result(**fields: Any) -> dict[str, Any]:
    ended = {"status": "completed", "exit_code": 0, "stdout": "", "stderr": ""}
    return {"execution_id": "exe_1", "duration_ms": 12, **ended, **fields}


def texts(document: dict[str, Any]) -> list[str]:
    return [block.text for block in tool_result(document).content if isinstance(block, TextContent)]


def test_each_display_becomes_its_richest_form() -> None:
    displays = [
        {"data": {"image/png": f"{PNG}\n", "text/plain": "<Figure>"}, "metadata": {}},
        {"data": {"text/html": "<b>1</b>", "text/plain": "1"}, "metadata": {}},
        {"data": {"application/json": {"a": 1}}, "metadata": {}},
        {"data": {"text/plain": "42"}, "metadata": {}},
    ]
    answer = tool_result(result(displays=displays, result="42"))
    assert answer.content[1] == ImageContent(data=PNG, mime_type="image/png")
    assert [block.text for block in answer.content[2:] if isinstance(block, TextContent)] == ["1", '{"a": 1}']
    assert answer.structured_content["displays"] == displays


def test_displays_with_very_many_values_lose_their_json() -> None:
    many: list[Any] = [[] for _ in range(DISPLAY_VALUES_MAX)]
    small = {"data": {"application/json": [1]}, "metadata": {}}
    displays = [
        {"data": {"application/json": many, "image/png": PNG}, "metadata": {"a": many}},
        {"data": {"application/json": many}, "metadata": {}},
        {"data": {}, "metadata": {}},  # the server has left out its values
        small,
    ]
    answer = tool_result(result(displays=displays, truncated={"stdout": False, "stderr": False}))
    assert answer.structured_content["displays"] == [
        {"data": {"image/png": PNG}, "metadata": {}},
        *2 * [{"data": {"text/plain": DISPLAY_LEFT_OUT}, "metadata": {}}],
        small,
    ]
    assert answer.structured_content["truncated"] == {"stdout": False, "stderr": False, "displays": True}
    assert [block.type for block in answer.content] == ["text", "image", "text", "text", "text"]
    assert "some displays are left out" in texts(answer.structured_content)[0]


def test_very_many_displays_are_cut() -> None:
    displays = [{"data": {"text/plain": "1"}, "metadata": {}}] * DISPLAY_VALUES_MAX
    answer = tool_result(result(displays=displays))
    assert len(answer.structured_content["displays"]) < DISPLAY_VALUES_MAX / 5
    assert answer.structured_content["truncated"] == {"displays": True}


@pytest.mark.parametrize(
    "parts",
    [
        {"stdout": "a" * 3_000_000},
        {"stdout": "\x01" * 400_000, "stderr": "\x01" * 400_000, "result": "\x01" * 60_000},
        {"stdout": "\U0001f600" * 87_000, "stderr": "\U0001f600" * 87_000},
        {"displays": [{"data": {"image/png": PNG + "A" * 700_000}, "metadata": {}}]},
        {"displays": [{"data": {"image/png": PNG + "A" * 2_000_000}, "metadata": {}}] * 3},
        {"files": [{"path": "x" * 500, "size": 1}] * 5_000},
    ],
)
def test_an_answer_fits_into_an_event(parts: dict[str, Any]) -> None:
    """The client of the Python SDK refuses larger ones."""
    answer = tool_result(result(**parts))
    assert len(answer.model_dump_json().encode()) < DEFAULT_MAX_SSE_EVENT_SIZE
    for name in parts.keys() & {"stdout", "stderr", "displays"}:
        assert answer.structured_content["truncated"][name] is True


def test_an_image_that_fits_alone_is_kept_for_the_model() -> None:
    image = PNG + "A" * 700_000
    answer = tool_result(result(displays=[{"data": {"image/png": image}, "metadata": {}}]))
    assert answer.content[1] == ImageContent(data=image, mime_type="image/png")
    assert answer.structured_content["displays"] == []


def test_a_long_output_is_cut_in_the_middle() -> None:
    (text,) = texts(result(stdout=f"begin{'x' * 3 * TEXT_CHARACTERS_MAX}end"))
    assert len(text) < TEXT_CHARACTERS_MAX + 200
    assert text.startswith("stdout:\nbegin")
    assert "characters left out" in text
    assert "end\n\nexe_1: completed" in text


def test_a_result_without_output_says_how_it_ended() -> None:
    assert texts(result()) == ["exe_1: completed, exit code 0, 12 ms"]
    failed = result(status="failed", exit_code=124, error_type="timeout", error="longer than 1 s")
    assert tool_result(failed).is_error
    assert texts(failed) == ["exe_1: failed, exit code 124, 12 ms, timeout, longer than 1 s"]


def test_a_result_of_none_is_left_out() -> None:
    assert texts(result(stdout="42\n", result="None")) == [
        "stdout:\n42\n\nexe_1: completed, exit code 0, 12 ms"
    ]


def test_truncated_output_is_named() -> None:
    (text,) = texts(result(stdout="x", truncated={"stdout": True, "stderr": False}))
    assert text.startswith("stdout (the server stored only its beginning):\nx")


def test_a_text_file_is_text_whatever_its_name() -> None:
    assert file_content("pyexec://x", "data.unknown", "é".encode()) == TextContent(text="é")


def test_only_an_image_is_an_image_whatever_its_name() -> None:
    assert file_content("pyexec://x", "a.png", b"text") == TextContent(text="text")
    assert file_content("pyexec://x", "a.gif", b"") == TextContent(text="")
    image = b"RIFF\x00\n\x00\x00WEBP"
    assert isinstance(file_content("pyexec://x", "a.webp", image), ImageContent)
    displays = [{"data": {"image/png": "bm9uZQ==", "text/plain": "<Figure>"}, "metadata": {}}]
    assert tool_result(result(displays=displays)).content[1] == TextContent(text="<Figure>")


@pytest.mark.parametrize(
    "hint",
    [NETWORK_HINT, CELL_NETWORK_HINT, DISK_HINT, CELL_DISK_HINT, MODULE_HINT, CELL_MODULE_HINT, STDIN_HINT],
)
def test_a_hint_names_arguments_of_the_tools(hint: str) -> None:
    said = "config.disk_mb and --disk are the program's own words"
    answer = tool_result(result(exit_code=1, error=f"{said} {hint}"))
    error = answer.structured_content["error"]
    assert error.startswith(f"{said} (")
    assert error in texts(answer.structured_content)[0]
    own = error.removeprefix(said)
    assert own.endswith(")")
    assert not [word for word in ("config.", "--", "requirements_txt", "_mb") if word in own], own


def test_an_error_names_arguments_of_the_tools() -> None:
    error = tool_error(
        "send inline_requirements: false (--no-requirements) to ignore it", code="invalid_request"
    )
    assert str(error) == "send inline_requirements: false to ignore it"
    error = tool_error("line 1 of requirements_txt", code="invalid_request", field="config.network_disabled")
    assert (str(error), error.field) == ("line 1 of requirements", "network")
    error = tool_error("config.memory_mb: the archive has config.py twice", code="invalid_request")
    assert str(error) == "memory_mb: the archive has config.py twice"


def test_the_output_of_a_setup_is_kept_as_it_is() -> None:
    said = "pre_commands[0] failed with exit code 1: config.disk_mb and requirements_txt in config.py"
    answer = tool_result(result(status="failed", error_type="setup_failed", error=said))
    assert answer.structured_content["error"] == said
