"""How to run it: the keyword arguments of the client's methods, and the metadata they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Limits(TypedDict, total=False):
    """Limits of one run; what is not given, the server decides.

    `timeout` in seconds, `memory_mb` and `disk_mb` in MB, `cpu_shares` relative to 1024, `cpus` in cores.
    `network`: whether the program may reach the network (by default it may not).
    """

    timeout: float | None
    memory_mb: int | None
    disk_mb: int | None
    cpu_shares: int | None
    cpus: float | None
    network: bool | None


class RunOptions(Limits, total=False):
    """What `run`, `submit` and `stream` take beside the source, and `eval` beside the code.

    `entrypoint`: which file to run. `image`: the Docker image. `requirements`: the text of a
    requirements.txt. `pre_commands`: shell commands run as root before the program. `stdin`: what the program
    reads. `env`: environment variables. `args`: the program's arguments. `output_files`: glob patterns of
    files to bring back.
    """

    entrypoint: str | None
    image: str | None
    requirements: str | None
    pre_commands: Sequence[str] | None
    stdin: str | None
    env: Mapping[str, str] | None
    args: Sequence[str] | None
    output_files: Sequence[str] | None


_FIELDS = {
    "entrypoint": "entrypoint",
    "image": "docker_image",
    "requirements": "requirements_txt",
    "pre_commands": "pre_commands",
    "stdin": "stdin",
    "args": "script_args",
    "output_files": "output_files",
}
_LIMITS = {
    "timeout": "timeout_seconds",
    "memory_mb": "memory_mb",
    "disk_mb": "disk_mb",
    "cpu_shares": "cpu_shares",
    "cpus": "cpus",
}


def metadata(options: Mapping[str, Any]) -> dict[str, Any]:
    """The request's metadata: only what was given, so that the server's defaults hold for the rest.

    Raises TypeError for an option that does not exist.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - RunOptions.__annotations__.keys():
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(RunOptions.__annotations__)}")
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
