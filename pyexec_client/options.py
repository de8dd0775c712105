"""The keyword arguments of the client's methods, and their conversion to request metadata."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from .arguments import flag, number, text, text_mapping, texts, whole_number


class Limits(TypedDict, total=False):
    """Limits of one run. The server's defaults apply to limits that are not given.

    - `timeout`: seconds that the program may run
    - `memory_mb`, `disk_mb`: limits in MiB
    - `cpu_shares`: CPU weight relative to other runs (default 1024)
    - `cpus`: limit in CPU cores
    - `cpu_seconds`: seconds of processor time that the program may use
    - `network`: allow network access (default: not allowed)
    """

    timeout: float | None
    memory_mb: int | None
    disk_mb: int | None
    cpu_shares: int | None
    cpus: float | None
    cpu_seconds: float | None
    network: bool | None


class RunOptions(Limits, total=False):
    """Options of `run`, `submit`, `stream`, `map` and `eval`.

    - `entrypoint`: path of the file to run
    - `image`: Docker image
    - `requirements`: text of a requirements.txt; its packages are installed before the run
    - `inline_requirements`: False ignores the `# /// script` block of the script; without `requirements`, its
      dependencies are installed, too
    - `pre_commands`: shell commands that run as root during setup
    - `stdin`: standard input of the program
    - `env`: environment variables of the program
    - `args`: arguments of the program
    - `output_files`: glob patterns of files under /work to return; a directory means all files in it
    - `capture_displays`: return what the program shows, such as figures, in `Result.displays`; `eval` does so by
      default
    - `webhook_url`: URL to which the server sends the result after the end; the server's operator allows the hosts
    """

    entrypoint: str | None
    image: str | None
    requirements: str | None
    inline_requirements: bool | None
    pre_commands: Sequence[str] | None
    stdin: str | None
    env: Mapping[str, str] | None
    args: Sequence[str] | None
    output_files: Sequence[str] | None
    capture_displays: bool | None
    webhook_url: str | None


class SessionOptions(Limits, total=False):
    """Options of a session. The limits apply to each cell, and `timeout` can be given for a single cell, too.

    - `image`: Docker image
    - `requirements`: text of a requirements.txt; its packages are installed before the session opens
    - `pre_commands`: shell commands that run as root during setup
    - `env`: environment variables of the interpreter
    - `idle_timeout`: the session closes after so many seconds without a cell
    - `lifetime`: the session closes after so many seconds, whatever happens
    """

    image: str | None
    requirements: str | None
    pre_commands: Sequence[str] | None
    env: Mapping[str, str] | None
    idle_timeout: float | None
    lifetime: float | None


_PACKAGES = "the text of a requirements.txt (a str; for a file, Path(...).read_text())"
_STDIN = "text (a str; send binary input as a file of the source)"
_ENV = "a mapping of names to values, such as {'NAME': 'value'}"
_PATTERNS = "a list of patterns, such as ['*.png']"

_OTHER_NAMES = {
    "env_vars": "env",
    "network_disabled": "network",
    **dict.fromkeys(("packages", "dependencies", "libraries", "modules"), "requirements"),
    **dict.fromkeys(("environment", "variables"), "env"),
    **dict.fromkeys(("argv", "arguments"), "args"),
    "input": "stdin",
    "time_limit": "timeout",
}
"""The options to suggest for fields of the HTTP API, and for names that other services use."""
_FIELDS: dict[str, tuple[str, Callable[[str, object], object]]] = {
    "entrypoint": ("entrypoint", text),
    "image": ("docker_image", text),
    "requirements": ("requirements_txt", partial(text, expected=_PACKAGES)),
    "inline_requirements": ("inline_requirements", flag),
    "pre_commands": ("pre_commands", texts),
    "stdin": ("stdin", partial(text, expected=_STDIN)),
    "args": ("script_args", texts),
    "output_files": ("output_files", partial(texts, expected=_PATTERNS)),
    "capture_displays": ("capture_displays", flag),
    "webhook_url": ("webhook_url", text),
    "idle_timeout": ("idle_timeout_seconds", number),
    "lifetime": ("lifetime_seconds", number),
}
_LIMITS: dict[str, tuple[str, Callable[[str, object], object]]] = {
    "timeout": ("timeout_seconds", number),
    "memory_mb": ("memory_mb", whole_number),
    "disk_mb": ("disk_mb", whole_number),
    "cpu_shares": ("cpu_shares", whole_number),
    "cpus": ("cpus", number),
    "cpu_seconds": ("cpu_seconds", number),
}


def metadata(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to request metadata. Omit options that are None, so that the server's defaults apply.

    Raise TypeError for an unknown option or a value of the wrong type, and ValueError for an infinite number.
    """
    return _metadata(options, RunOptions.__annotations__)


def session_metadata(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options of a session to the request that opens it, in the same way."""
    return _metadata(options, SessionOptions.__annotations__)


def _suggestion(unknown: str, allowed: Mapping[str, object]) -> str:
    """Return a question with the option that was probably meant; empty if none is similar.

    Fields of the HTTP API and names of other services are recognized, too."""
    names = {field: option for table in (_FIELDS, _LIMITS) for option, (field, _) in table.items()}
    names |= _OTHER_NAMES | {option: option for option in allowed}
    near = difflib.get_close_matches(
        unknown, [name for name, option in names.items() if option in allowed], n=1
    )
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def _metadata(options: Mapping[str, Any], allowed: Mapping[str, object]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - allowed.keys():
        raise TypeError(
            f"unknown option {min(unknown)!r}; allowed are {', '.join(allowed)}{_suggestion(min(unknown), allowed)}"
        )
    fields = _converted(_FIELDS, given)
    if "env" in given:
        variables = text_mapping("env", given["env"], _ENV)
        for name in variables:
            if not name or "=" in name:
                raise ValueError(f"env: {name!r} is not the name of a variable: it is empty or contains '='")
        fields["env_vars"] = [f"{name}={value}" for name, value in variables.items()]
    config = _converted(_LIMITS, given)
    if "network" in given:
        config["network_disabled"] = not flag("network", given["network"])
    return fields | ({"config": config} if config else {})


def _converted(
    fields: Mapping[str, tuple[str, Callable[[str, object], object]]], given: Mapping[str, Any]
) -> dict[str, Any]:
    return {field: check(name, given[name]) for name, (field, check) in fields.items() if name in given}
