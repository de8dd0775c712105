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
    "socket_diag",
    "sockets",
    "estimate",
    "locks",
    "mapped_files",
    "usage",
    "processes",
    "seccomp",
    "home",
    "interpreter",
    "prestart",
    "program",
    "cleanup",
    "supervisor",
)
_SESSION = (
    "session_lines",
    "session_frames",
    "session_interpreter",
    "session_cell",
    "session_limits",
    "session_cells",
    "session_files",
    "session",
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
_SESSION_REPORTS = ("session_shell", "session_ipython")
_SETUP = ("socket_diag", "sockets", "estimate", "locks", "mapped_files", "setup_disk", "setup_init")


def supervisor_command(*, prestart: bool) -> tuple[str, ...]:
    """Return the command of a sandbox's container: an interpreter that runs the supervisor.

    With `prestart`, the supervisor starts the program's interpreter in advance; otherwise at the start signal."""
    return _command(prestart, _report_texts(), _SUPERVISOR)


def session_command(*, prestart: bool) -> tuple[str, ...]:
    """Return the command of a session's container. With `prestart`, IPython is loaded in advance."""
    reports = {**report_modules(), **{name: source(f"reports/{name}") for name in _SESSION_REPORTS}}
    return _command(prestart, json.dumps(reports), (*_SUPERVISOR, *_COLLECTOR, *_SESSION))


def _command(prestart: bool, reports: str, modules: tuple[str, ...]) -> tuple[str, ...]:
    texts = chain.from_iterable(map(_module, modules))
    options = ("on" if prestart else "off", source("startup"), reports, _filters())
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
