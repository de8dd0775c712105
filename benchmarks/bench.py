"""Run the benchmarks and print a table for each subject. See benchmarks/README.md."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.capacity import measure_capacity
from benchmarks.environments import measure_environments
from benchmarks.latency import measure_latency
from benchmarks.latency_breakdown import measure_latency_breakdown
from benchmarks.load_balancing import measure_load_balancing
from benchmarks.log_size import measure_log_size
from benchmarks.long_polls import measure_long_polls
from benchmarks.mcp import measure_mcp
from benchmarks.report import Section, draw_chart, json_report, markdown_report
from benchmarks.resource_limits import measure_resource_limits
from benchmarks.sandbox_reuse import measure_sandbox_reuse
from benchmarks.sessions import measure_sessions
from benchmarks.throughput import measure_throughput
from benchmarks.upload import measure_upload

SUBJECTS: Mapping[str, Callable[[str], Section]] = {
    "latency": measure_latency,
    "mcp": measure_mcp,
    "sessions": measure_sessions,
    "latency_breakdown": measure_latency_breakdown,
    "throughput": measure_throughput,
    "sandbox_reuse": measure_sandbox_reuse,
    "upload": measure_upload,
    "environments": measure_environments,
    "log_size": measure_log_size,
    "long_polls": measure_long_polls,
    "load_balancing": measure_load_balancing,
    "resource_limits": measure_resource_limits,
    "capacity": measure_capacity,
}


def main() -> None:
    """Parse the command line, measure each subject and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results and times as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables as Markdown")
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="also draw a chart of the subjects latency and throughput (.svg or .png)",
    )
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)} (default: all)"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.subjects) - SUBJECTS.keys()):
        parser.error(f"unknown subject {unknown[0]!r}; choose from {', '.join(SUBJECTS)}")
    image = os.environ.get("PYEXEC_TEST_IMAGE") or os.environ.get("PYEXEC_DEFAULT_IMAGE")
    if not image:
        parser.error("set PYEXEC_TEST_IMAGE to an image with Python, or use `make bench`")
    names = arguments.subjects or list(SUBJECTS)
    if arguments.picture is not None and not {"latency", "throughput"} <= set(names):
        parser.error("--picture needs the subjects latency and throughput")
    sections = {}
    for name in names:
        sections[name] = SUBJECTS[name](image)
        print(sections[name].table(), flush=True, end="\n\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(json_report([*sections.values()], image), indent=2) + "\n")
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown_report([*sections.values()]))
    if arguments.picture is not None:
        draw_chart(sections["latency"], sections["throughput"], arguments.picture)


if __name__ == "__main__":
    main()
