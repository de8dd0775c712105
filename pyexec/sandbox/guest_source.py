"""The source texts of `pyexec.guest`, in the form in which they travel into a container."""

import binascii
import json
from functools import cache
from importlib import resources
from itertools import chain

from pyexec.domain.seccomp.bpf import MACHINES, compiled

_SUPERVISOR = (
    "wire",
    "archive",
    "disk",
    "sockets",
    "memory",
    "cpu",
    "processes",
    "seccomp",
    "home",
    "interpreter",
    "prestart",
    "report_forwarder",
    "program",
    "cleanup",
    "supervisor",
)
_COLLECTOR = ("patterns", "collector")
_REPORTS = (
    "channel",
    "hooks",
    "bundles",
    "display",
    "open_figures",
    "figures",
    "ipython",
    "evaluator",
    "exceptions",
)
_SETUP = ("setup_disk", "setup_init")


def supervisor_command(*, prestart: bool) -> tuple[str, ...]:
    """Return the command of a sandbox's container: an interpreter that runs the supervisor.

    With `prestart`, the supervisor starts the program's interpreter in advance; otherwise at the start signal."""
    texts = chain.from_iterable(map(_module, _SUPERVISOR))
    options = ("on" if prestart else "off", source("startup"), _report_texts(), _filters())
    return ("python3", "-I", "-S", "-c", source("bootstrap"), *options, *texts)


def setup_command(timeout_seconds: int, disk_bytes: int) -> tuple[str, ...]:
    """Return the command of a setup container: an interpreter that measures the setup and ends after the timeout."""
    texts = chain.from_iterable(map(_module, _SETUP))
    arguments = json.dumps([timeout_seconds, disk_bytes])
    return ("python3", "-I", "-S", "-c", source("setup_bootstrap"), arguments, *texts)


@cache
def _report_texts() -> str:
    """Return the modules with which programs report, as JSON."""
    return json.dumps(report_modules())


def report_modules() -> dict[str, str]:
    """Return the texts of the modules with which programs report, by name."""
    return {name: source(f"reports/{name}") for name in _REPORTS}


@cache
def _filters() -> str:
    """Return the filter of system calls for each machine, as JSON with base64."""
    return json.dumps({machine: _base64(compiled(machine)) for machine in MACHINES})


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def collector_modules() -> tuple[tuple[str, str], ...]:
    """Return the name and the text of each module of the collector, after those that it imports."""
    return tuple(map(_module, _COLLECTOR))


@cache
def source(module: str) -> str:
    """Return the text of a module."""
    return resources.files("pyexec.guest").joinpath(f"{module}.py").read_text("utf-8")


def _module(name: str) -> tuple[str, str]:
    return f"pyexec.guest.{name}", source(name)
