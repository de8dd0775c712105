"""Text and images of a result for a model, and the description of the tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..arguments import whole_number
from ..errors import InvalidRequest
from ..options import RunOptions
from ..result import Result, Status

NO_EXIT_CODE = 125
"""Exit code of an execution whose program did not run to an end. The command line uses it, too."""
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
CHARACTERS_MAX = 50_000
"""Characters of each output that a model sees, unless the caller sets another limit; /mcp has the same limit."""
_PACKAGES_CHARACTERS_MAX = 500
_BLOCK = """To use other packages, begin the program with a block such as
# /// script
# dependencies = ["numpy"]
# ///"""
_LIMITS = (
    ("timeout", "{:g} s of time"),
    ("cpu_seconds", "{:g} s of processor time"),
    ("memory_mb", "{:g} MiB of memory"),
    ("disk_mb", "{:g} MiB of files"),
)


def tool_description(options: RunOptions) -> str:
    """Describe the tool to a model. `options` are those of each run."""
    network = "has network access" if options.get("network") else "has no network access"
    return (
        "Run a Python 3 program in a sandbox and return what it prints, the value of its last expression, the figures "
        "that it shows, and the traceback if it fails. Each call starts a new interpreter in an empty directory: "
        f"variables and files of earlier calls are gone. The program {network}. {_limits(options)}{_packages(options)}"
    )


def _limits(options: RunOptions) -> str:
    """Name the limits that the options set. The client does not know the defaults of the server."""
    given = ((options.get(name), text) for name, text in _LIMITS)
    limits = [text.format(value) for value, text in given if value is not None]
    return f"Limits: {', '.join(limits)}. " if limits else "Its time, memory and files are limited. "


def _packages(options: RunOptions) -> str:
    """Say which packages there are. The server ignores the block of a program if there are `requirements`."""
    if requirements := options.get("requirements"):
        packages = ", ".join(requirements.split("\n")).strip(", ")
        return f"Installed packages besides the standard library: {packages[:_PACKAGES_CHARACTERS_MAX]}."
    image = options.get("image")
    installed = f"What the image {image} contains" if image else "Only the standard library"
    block = "" if options.get("inline_requirements") is False else f" {_BLOCK}"
    return f"{installed} is installed.{block}"


def exit_code(result: Result) -> int:
    """Return the exit code of the program, or 125 if it has none."""
    return NO_EXIT_CODE if result.exit_code is None else result.exit_code


def checked_characters(value: object) -> int:
    """Return the value of `max_characters`, which must be a whole number, at least 1."""
    limit = whole_number("max_characters", value)
    if limit < 1:
        raise ValueError(f"max_characters must be at least 1, not {limit}")
    return limit


def shortened(text: str, max_characters: int) -> str:
    """Leave out the middle of a long text: the end of an output says how it ended."""
    if len(text) <= max_characters:
        return text
    half = max_characters // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n… {left_out} characters left out …\n{text[half + left_out :]}"


def text_of(result: Result, max_characters: int = CHARACTERS_MAX) -> str:
    """Return the output, the value of the last expression, and notes on failures and truncated output.

    Each output, and the value, has at most `max_characters`."""
    value = "" if result.result in (None, "None") else result.result  # as in an interactive interpreter
    shown = (_plain_text(display.data) for display in result.displays)
    outputs = (result.stdout, result.stderr, *shown, value)
    parts = [shortened(output.rstrip("\n"), max_characters) for output in outputs if output]
    parts += [f"[{shortened(note, CHARACTERS_MAX)}]" for note in notes(result)]
    return "\n".join(parts)


def rejection(error: InvalidRequest) -> str:
    """Return what the model has to change in a program that the server rejects.

    Raises the error again if the caller's options are its cause, which a model cannot change.
    """
    if not (error.field or "").startswith(("code", "files")):
        raise error
    return f"[the program was not run: {error}]"


def _plain_text(data: Mapping[str, Any]) -> str:
    """Return the text of a display; nothing if it has an image."""
    return "" if IMAGES & data.keys() else str(data.get("text/plain", ""))


def notes(result: Result) -> Iterator[str]:
    """Yield what the output of the program does not show."""
    if result.status is not Status.COMPLETED:
        yield f"{result.error_type or result.status}: {result.error or 'the execution ended early'}"
    elif result.exit_code:
        yield f"exit code {result.exit_code}"
    for name in ("stdout", "stderr", "result"):
        if getattr(result.truncated, name):
            yield f"{name} is truncated"
    if result.files:
        yield "output files: " + ", ".join(f"{file.path} ({file.size} bytes)" for file in result.files)


def images_of(result: Result) -> Iterator[tuple[str, str]]:
    """Yield the MIME type and the base64 text of each image that the program displayed, in order."""
    for display in result.displays:
        if display.mime_type in IMAGES:
            yield display.mime_type, display.data[display.mime_type]
