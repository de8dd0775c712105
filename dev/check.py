"""`make lint`, `test`, `soak`, `bench`, `docs` and `audit`: set up the machine, run the programs, print the result."""

from __future__ import annotations

import os
import subprocess
import sys

import debian
import golang
import subprocesses
import virtualenv
from console import SetupError, print_step, run_main
from provision import provision

_LINT = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "lint-imports": ["lint-imports"],
    "mypy": ["mypy"],
    "mypy dev": ["mypy", "--strict", "dev"],
}
_GO = ["go", "-C", str(golang.MODULE)]
_LINT_GO = {
    "go vet": [*_GO, "vet", "./..."],
    "staticcheck": [*_GO, "tool", "-modfile=lint/go.mod", "staticcheck", "./..."],
    "go vet nomad": ["go", "-C", "nomad/check", "vet", "./..."],
}
# Ten times the longest test: a test that hangs fails with a traceback, and the others still run.
_BOUNDED = ["pytest", "-m", "not soak", "--timeout", "600"]
_NO_LOCAL_CLAIM = ["--setting", "local_claim=off"]
_STORIES = {
    "lint": {**_LINT, **_LINT_GO},
    "test": {
        **_LINT,
        **_LINT_GO,
        "go test": [*_GO, "test", "./..."],
        "pytest": _BOUNDED,
        # Only tests over HTTP: claims by the leader make no difference to the others.
        "pytest, the leader claims all": [*_BOUNDED, *_NO_LOCAL_CLAIM, "tests/web"],
    },
    "soak": {
        "pytest": ["pytest", "-m", "soak"],
        "pytest, clusters under load": ["pytest", "tests/cluster", "--jobs", "300"],
        "pytest, the leader claims all": [*_BOUNDED, *_NO_LOCAL_CLAIM],
    },
    "bench": {"bench": ["python", "benchmarks/bench.py"]},
    "docs": {"docs/configuration.md": ["python", "dev/configuration.py"]},
    "audit": {"audit": ["python", "dev/audit.py"]},
}
_WITHOUT_DOCKER = ("lint", "docs", "audit")
_WITH_GO = ("lint", "test", "audit")


def main() -> int:
    """Run the programs of the target that the first argument names.

    Further arguments are passed to the last program. With them, only the first pytest of the target runs."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in _STORIES:
        raise SetupError(f"Unknown target {name!r}; choose from {', '.join(_STORIES)}.")
    environment = _environment(
        docker=name not in _WITHOUT_DOCKER, go=name in _WITH_GO, tests=name in ("test", "soak")
    )
    programs = {title: list(argv) for title, argv in _STORIES[name].items()}
    if arguments:
        tests = [title for title, argv in programs.items() if argv[0] == "pytest"]
        for title in tests[1:]:
            del programs[title]
        programs[list(programs)[-1]] += arguments
    # Run all programs even if one fails.
    failed = [title for title, argv in programs.items() if not _passes(title, argv, environment)]
    verdict = f"FAILED: {', '.join(failed)}" if failed else f"all passed: {', '.join(programs)}"
    print_step(f"make {name}: {verdict}")
    return 1 if failed else 0


def _environment(*, docker: bool, go: bool, tests: bool) -> dict[str, str]:
    """Set up the machine; return the environment of the programs. `tests` includes a browser."""
    if not docker:
        subprocesses.prepare()
        virtualenv.check_python()
        virtualenv.ensure(dev=True)
        found = {}
    else:
        machine = provision(dev=True)
        found = {"DOCKER_HOST": machine.engine.address, "PYEXEC_TEST_IMAGE": machine.image}
    if tests:
        debian.ensure_browser()
    folders = [virtualenv.BIN, *([golang.ensure().parent] if go else [])]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return {**os.environ, **found, "PATH": path}


def _passes(title: str, argv: list[str], environment: dict[str, str]) -> bool:
    print_step(title)
    done = subprocess.run(argv, cwd=subprocesses.ROOT, env=environment, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(run_main(main))
