"""The keyword arguments of the client's methods, and their conversion to request metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


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
    - `capture_displays`: return what the program shows, such as figures, in `Result.displays`; `eval` always does
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


_FIELDS = {
    "entrypoint": "entrypoint",
    "image": "docker_image",
    "requirements": "requirements_txt",
    "inline_requirements": "inline_requirements",
    "pre_commands": "pre_commands",
    "stdin": "stdin",
    "args": "script_args",
    "output_files": "output_files",
    "capture_displays": "capture_displays",
}
_LIMITS = {
    "timeout": "timeout_seconds",
    "memory_mb": "memory_mb",
    "disk_mb": "disk_mb",
    "cpu_shares": "cpu_shares",
    "cpus": "cpus",
    "cpu_seconds": "cpu_seconds",
}


def metadata(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options to request metadata. Omit options that are None, so that the server's defaults apply.

    Raise TypeError for an unknown option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - RunOptions.__annotations__.keys():
        raise TypeError(
            f"unknown option {min(unknown)!r}; allowed are {', '.join(RunOptions.__annotations__)}"
        )
    fields: dict[str, Any] = {
        field: list(value) if isinstance(value := given[name], tuple) else value
        for name, field in _FIELDS.items()
        if name in given
    }
    if "env" in given:
        fields["env_vars"] = [f"{key}={value}" for key, value in given["env"].items()]
    config = {field: given[name] for name, field in _LIMITS.items() if name in given}
    if "network" in given:
        config["network_disabled"] = not given["network"]
    return fields | ({"config": config} if config else {})
