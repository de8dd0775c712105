"""The targets of the Makefile that run checks: set up the machine, run the programs, print the result."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import consul
import debian
import golang
import integrations
import subprocesses
import virtualenv
from console import SetupError, print_step, run_main
from provision import provision

Programs = dict[str, list[str]]
"""Commands by the titles under which they are reported."""

_LINT: Programs = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "lint-imports": ["lint-imports"],
    "mypy": ["mypy"],
    "mypy dev": ["mypy", "--strict", "dev"],
}
_GO = ["go", "-C", str(golang.MODULE)]
_LINT_GO: Programs = {
    "go vet": [*_GO, "vet", "./..."],
    "staticcheck": [*_GO, "tool", "-modfile=lint/go.mod", "staticcheck", "./..."],
    "go vet nomad": ["go", "-C", "nomad/check", "vet", "./..."],
}
_GO_TEST: Programs = {"go test": [*_GO, "test", "./..."]}
# Ten times the duration of the longest test. After it, a hanging test fails with its stack, and the others continue.
_PYTEST = ["pytest", "--timeout", "600", "--durations", "25"]
# Tests often wait for containers: four workers keep two processors busy.
_PARALLEL = [*_PYTEST, "-n", "4"]
_WITHOUT_DOCKER = ["-m", "not (soak or full or service)", "tests/domain", "tests/contract", "tests/services"]
_CLAIMS = ["-m", "claims and not (soak or full)", "tests/web"]
_LEADER_CLAIMS = ["--setting", "local_claim=off"]
_USED_ONCE = ["-m", "used_once and not (soak or full)", "tests/sandbox"]
# `make test` tries fewer examples of each property: see tests/conftest.py.
_ALL_EXAMPLES = ["--hypothesis-profile", "thorough"]
_WITHOUT_REUSE = ["--setting", "sandbox_reuse=off"]


@dataclass(frozen=True)
class Target:
    """The programs of one Makefile target. Lanes run in parallel, the programs of a lane one after the other.

    The programs of the last lane write to the terminal. In the other lanes, the output of a program is printed only if
    the program fails."""

    lanes: tuple[Programs, ...]
    docker: bool = False
    go: bool = False
    browser: bool = False
    frameworks: bool = False


_TARGETS = {
    "check": Target(
        (
            {**_LINT, **_LINT_GO},
            {"pytest": [*_PARALLEL, *_WITHOUT_DOCKER, "-n", "2"]},
        ),
        go=True,
    ),
    "lint": Target(({**_LINT, **_LINT_GO},), go=True),
    "test": Target(
        (
            {
                **_LINT,
                **_LINT_GO,
                **_GO_TEST,
                # Single processes, at the same time as the workers of the other lane. They end before those do.
                "pytest, the leader claims all": [*_PYTEST, *_CLAIMS, *_LEADER_CLAIMS],
                "pytest, each sandbox used once": [*_PYTEST, *_USED_ONCE, *_WITHOUT_REUSE],
            },
            {"pytest": [*_PARALLEL, "-m", "not (soak or full)"]},
        ),
        docker=True,
        go=True,
        browser=True,
    ),
    "soak": Target(
        (
            {
                "pytest": ["pytest", *_ALL_EXAMPLES, "-m", "soak or full"],
                "pytest, clusters under load": ["pytest", "tests/cluster", "--jobs", "300"],
                "pytest, the leader claims all": [
                    *_PYTEST,
                    *_ALL_EXAMPLES,
                    "-m",
                    "not soak",
                    *_LEADER_CLAIMS,
                ],
                "pytest, each sandbox used once": [
                    *_PYTEST,
                    "-m",
                    "not soak",
                    "tests/sandbox",
                    "--ignore",
                    "tests/sandbox/test_reuse.py",
                    *_WITHOUT_REUSE,
                ],
            },
        ),
        docker=True,
        go=True,
        browser=True,
        frameworks=True,
    ),
    "test-integrations": Target(
        ({"pytest": [*_PYTEST, "-m", "full", "tests/integrations"]},), docker=True, frameworks=True
    ),
    "bench": Target(({"bench": ["python", "benchmarks/bench.py"]},), docker=True, go=True, browser=True),
    "docs": Target(({"docs/configuration.md": ["python", "dev/configuration.py"]},)),
    "audit": Target(({"audit": ["python", "dev/audit.py"]},), go=True),
}


def main() -> int:
    """Run the target that the first argument names.

    Pass all other arguments to the first program of the last lane, and skip all other tests. Tests that are selected in
    this way run in one process."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in _TARGETS:
        raise SetupError(f"Unknown target {name!r}; choose from {', '.join(_TARGETS)}.")
    started = time.monotonic()
    target = _TARGETS[name]
    environment = _environment(target)
    lanes = [dict(lane) for lane in target.lanes]
    if arguments:
        title, argv = next(iter(lanes[-1].items()))
        lanes = [
            {other: command for other, command in lane.items() if command[0] != "pytest"} for lane in lanes
        ]
        lanes[-1] = {title: [*argv, *(["-n", "0"] if "-n" in argv else []), *arguments]}
    prepared = time.monotonic()
    with ThreadPoolExecutor(len(lanes)) as threads:
        running = [
            threads.submit(_run_lane, lane, environment, shown=number == len(lanes))
            for number, lane in enumerate(lanes, 1)
        ]
        failed = [title for lane in running for title in lane.result()]
    ended = time.monotonic()
    titles = ", ".join(title for lane in lanes for title in lane)
    verdict = f"FAILED: {', '.join(failed)}" if failed else f"all passed: {titles}"
    print_step(f"make {name}: {verdict}")
    print_step(f"make {name}: {ended - started:.0f} s, of which set-up took {prepared - started:.0f} s")
    return 1 if failed else 0


def _environment(target: Target) -> dict[str, str]:
    """Set up the machine for the programs. Return their environment, with the virtual environment first on PATH."""
    found = {}
    if target.docker:
        machine = provision(dev=True)
        found = {"DOCKER_HOST": machine.engine.address, "PYEXEC_TEST_IMAGE": machine.image}
    else:
        subprocesses.prepare()
        virtualenv.choose_python()
        virtualenv.ensure(dev=True)
    if target.browser:
        debian.ensure_test_programs()
        consul.ensure()  # here, since several workers would fetch it at the same time
    if target.frameworks:
        integrations.ensure()
    folders = [virtualenv.BIN, *([golang.ensure().parent] if target.go else [])]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    environment = {**os.environ, **found, "PATH": path}
    # Hundreds of servers and command lines start: without bytecode files, each would compile all its modules.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


_output = threading.Lock()


def _run_lane(programs: Programs, environment: dict[str, str], *, shown: bool) -> list[str]:
    """Run all programs in order, even after a failure. Return the titles of those that failed."""
    return [title for title, argv in programs.items() if not _passes(title, argv, environment, shown=shown)]


def _passes(title: str, argv: list[str], environment: dict[str, str], *, shown: bool) -> bool:
    started = time.monotonic()
    if shown:
        print_step(title)
        return subprocess.run(argv, cwd=subprocesses.ROOT, env=environment, check=False).returncode == 0
    done = subprocess.run(
        argv,
        cwd=subprocesses.ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
    )
    with _output:
        print_step(f"{title} ({time.monotonic() - started:.0f} s)")
        if done.returncode:
            print(done.stdout + done.stderr, end="", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(run_main(main))
