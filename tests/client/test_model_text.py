"""Test the text and the images that a model gets of a result."""

from typing import Any

import pytest

from pyexec.mcp import content
from pyexec_client import Result
from pyexec_client.errors import InvalidRequest
from pyexec_client.integrations.model_text import (
    checked_characters,
    exit_code,
    images_of,
    rejection,
    text_of,
    tool_description,
)
from pyexec_client.options import RunOptions


def result_of(**fields: Any) -> Result:
    return Result.from_json({"execution_id": "exe_1", "status": "completed", "exit_code": 0, **fields})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, ""),
        ({"stdout": "out\n", "stderr": "err\n", "result": "42"}, "out\nerr\n42"),
        ({"stdout": "out\n", "result": "None"}, "out"),
        ({"stdout": "out", "exit_code": 3}, "out\n[exit code 3]"),
        (
            {
                "displays": [
                    {"data": {"text/plain": "a table", "text/html": "<b>a table</b>"}, "metadata": {}},
                    {"data": {"text/plain": "<Figure>", "image/png": "eA=="}, "metadata": {}},
                ]
            },
            "a table",
        ),
        (
            {"status": "failed", "exit_code": 124, "error_type": "timeout", "error": "ran too long"},
            "[timeout: ran too long]",
        ),
        ({"status": "killed", "exit_code": None}, "[killed: the execution ended early]"),
        (
            {
                "stdout": "a",
                "truncated": {"stdout": True, "result": True},
                "files": [{"path": "b", "size": 1}],
            },
            "a\n[stdout is truncated]\n[result is truncated]\n[output files: b (1 bytes)]",
        ),
    ],
)
def test_the_text_says_what_the_output_does_not_show(fields: dict[str, Any], text: str) -> None:
    assert text_of(result_of(**fields)) == text


def test_the_middle_of_each_long_output_is_left_out_as_in_mcp() -> None:
    long = "a" * 30_000 + "b" * 40_000 + "c" * 30_000
    shown = content.shortened(long)
    assert text_of(result_of(stdout=f"{long}\n", stderr="err", result=long)) == f"{shown}\nerr\n{shown}"
    assert text_of(result_of(stdout="x" * 50_000)) == "x" * 50_000
    assert text_of(result_of(stdout="abcdefg"), 5) == "ab\n… 3 characters left out …\nfg"
    assert text_of(result_of(stdout="abc"), 1) == "\n… 3 characters left out …\n"


def test_a_limit_of_characters_is_at_least_1() -> None:
    assert checked_characters(1) == 1
    with pytest.raises(ValueError, match="max_characters must be at least 1, not 0"):
        checked_characters(0)


def test_an_execution_without_an_exit_code_has_that_of_the_command_line() -> None:
    assert exit_code(result_of(status="failed", exit_code=None)) == 125
    assert exit_code(result_of(exit_code=3)) == 3


def test_each_display_gives_at_most_one_image() -> None:
    displays = [
        {"data": {"image/jpeg": "anBn", "image/png": "cG5n", "text/plain": "p"}, "metadata": {}},
        {"data": {"text/html": "<b>"}, "metadata": {}},
        {"data": {"image/gif": "Z2lm"}, "metadata": {}},
    ]
    found = list(images_of(result_of(displays=displays)))
    assert found == [("image/png", "cG5n"), ("image/gif", "Z2lm")]
    assert list(images_of(result_of())) == []


def test_the_description_depends_on_the_network() -> None:
    assert "has no network access" in tool_description({})
    assert "has network access" in tool_description({"network": True})


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({}, ("are limited", "Only the standard library", "# /// script"), ("Limits:", "Installed")),
        (
            {"timeout": 30, "cpu_seconds": 2.5, "memory_mb": 512, "disk_mb": 64},
            ("Limits: 30 s of time, 2.5 s of processor time, 512 MiB of memory, 64 MiB of files.",),
            ("are limited",),
        ),
        (
            {"requirements": "numpy\npandas==2.2\n"},
            ("library: numpy, pandas==2.2.",),
            ("Only the standard", "# /// script"),
        ),
        (
            {"image": "python:3.13", "inline_requirements": False},
            ("the image python:3.13",),
            ("# /// script",),
        ),
    ],
)
def test_the_description_names_limits_and_packages(
    options: RunOptions, said: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    description = tool_description(options)
    assert all(text in description for text in said), description
    assert not any(text in description for text in unsaid), description


def test_a_model_learns_what_is_wrong_with_its_program_but_not_with_options() -> None:
    error = InvalidRequest(400, "line 1: not TOML", field="code")
    assert rejection(error) == f"[the program was not run: {error}]"
    with pytest.raises(InvalidRequest):
        rejection(InvalidRequest(400, "too large", field="config.memory_mb"))
