"""The source texts of `pyexec.guest`, in the form in which they travel into a container."""

from functools import cache
from importlib import resources
from itertools import chain

_SUPERVISOR = (
    "wire",
    "archive",
    "disk",
    "memory",
    "processes",
    "seccomp",
    "home",
    "interpreter",
    "prestart",
    "program",
    "supervisor",
)
_COLLECTOR = ("patterns", "collector")


def supervisor_command(*, prestart: bool) -> tuple[str, ...]:
    """Return the command of a sandbox's container: an interpreter that runs the supervisor.

    With `prestart`, the supervisor starts the program's interpreter in advance; otherwise at the start signal."""
    texts = chain.from_iterable(map(_module, _SUPERVISOR))
    return ("python3", "-I", "-S", "-c", source("bootstrap"), "on" if prestart else "off", *texts)


def collector_modules() -> tuple[tuple[str, str], ...]:
    """Return the name and the text of each module of the collector, after those that it imports."""
    return tuple(map(_module, _COLLECTOR))


@cache
def source(module: str) -> str:
    """Return the text of a module."""
    return resources.files("pyexec.guest").joinpath(f"{module}.py").read_text("utf-8")


def _module(name: str) -> tuple[str, str]:
    return f"pyexec.guest.{name}", source(name)
