"""Measures the service: each subject in one run beside what it is compared with. README.md beside says how."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bombs import measure_bombs
from benchmarks.environments import measure_environments
from benchmarks.history import measure_history
from benchmarks.report import Section, document
from benchmarks.runs import measure_runs
from benchmarks.spread import measure_spread
from benchmarks.throughput import measure_throughput
from benchmarks.upload import measure_upload
from benchmarks.waiters import measure_waiters

SUBJECTS: Mapping[str, Callable[[str], Section]] = {
    "runs": measure_runs,
    "throughput": measure_throughput,
    "upload": measure_upload,
    "environments": measure_environments,
    "history": measure_history,
    "waiters": measure_waiters,
    "spread": measure_spread,
    "bombs": measure_bombs,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures and every run there"
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)}; all if none")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.subjects) - SUBJECTS.keys()):
        parser.error(f"nothing is called {unknown[0]!r} here: allowed are {', '.join(SUBJECTS)}")
    image = os.environ.get("PYEXEC_TEST_IMAGE") or os.environ.get("PYEXEC_DEFAULT_IMAGE")
    if not image:
        parser.error("set PYEXEC_TEST_IMAGE to the image to measure with; `make bench` does")
    sections = []
    for name in arguments.subjects or SUBJECTS:
        section = SUBJECTS[name](image)
        print(section.table(), flush=True, end="\n\n")
        sections.append(section)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document(sections, image), indent=2) + "\n")


if __name__ == "__main__":
    main()
