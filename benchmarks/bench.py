"""Measures the service: each subject in one run beside what it is compared with. README.md beside says how."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bombs import measure_bombs
from benchmarks.capacity import measure_capacity
from benchmarks.environments import measure_environments
from benchmarks.history import measure_history
from benchmarks.picture import draw
from benchmarks.report import Section, document, page
from benchmarks.runs import measure_runs
from benchmarks.spread import measure_spread
from benchmarks.steps import measure_steps
from benchmarks.throughput import measure_throughput
from benchmarks.upload import measure_upload
from benchmarks.waiters import measure_waiters

SUBJECTS: Mapping[str, Callable[[str], Section]] = {
    "runs": measure_runs,
    "steps": measure_steps,
    "throughput": measure_throughput,
    "upload": measure_upload,
    "environments": measure_environments,
    "history": measure_history,
    "waiters": measure_waiters,
    "spread": measure_spread,
    "bombs": measure_bombs,
    "capacity": measure_capacity,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures and every run there"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the tables there, for a page"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="also draw the small runs there, as .svg or .png"
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)}; all if none")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.subjects) - SUBJECTS.keys()):
        parser.error(f"nothing is called {unknown[0]!r} here: allowed are {', '.join(SUBJECTS)}")
    image = os.environ.get("PYEXEC_TEST_IMAGE") or os.environ.get("PYEXEC_DEFAULT_IMAGE")
    if not image:
        parser.error("set PYEXEC_TEST_IMAGE to the image to measure with; `make bench` does")
    names = arguments.subjects or list(SUBJECTS)
    if arguments.picture is not None and "runs" not in names:
        parser.error("a picture is drawn of the subject runs, which is not among those that are asked for")
    sections = {}
    for name in names:
        sections[name] = SUBJECTS[name](image)
        print(sections[name].table(), flush=True, end="\n\n")
    if arguments.json is not None:
        report = document(list(sections.values()), image)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.markdown is not None:
        arguments.markdown.write_text(page(list(sections.values())))
    if arguments.picture is not None:
        draw(sections["runs"].samples, arguments.picture)


if __name__ == "__main__":
    main()
