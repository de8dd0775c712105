"""Measures the service beside bare `python3` and `docker run --rm`, in one run. README.md beside says how."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bare import BarePython, DockerRun, bare_python
from benchmarks.report import Amount, Figure, Report
from benchmarks.samples import Row, Samples
from benchmarks.service import BackToBackSync, ColdSync, WarmSync, running_service
from benchmarks.upload import DockerExecTar, UploadSync, large_archive

ROUNDS = 20
UPLOAD_ROUNDS = 3
BARE, DOCKER = BarePython.name, DockerRun.name
FIGURES = (
    Figure(row=WarmSync.name, reference=BARE, factor=2),
    Figure(row=WarmSync.name, reference=DOCKER, factor=1 / 8),
    Figure(row=UploadSync.name, reference=DockerExecTar.name, factor=3),
)
MEMORY_GROWTH_MIB_MAX = 64


def measure(
    rows: Sequence[tuple[Row, int]], rounds: int, settle: Callable[[], None]
) -> Mapping[str, Samples]:
    """Every row in turn, each as often as it says, in every round: what disturbs the machine disturbs all alike.
    `settle` waits until what the row before has set off is over."""
    samples = {row.name: Samples() for row, _ in rows}
    for number in range(1, rounds + 1):
        for row, times in rows:
            settle()
            samples[row.name].seconds += [row.run() for _ in range(times)]
        if sys.stderr.isatty():
            print(f"\rround {number} of {rounds}", end="", file=sys.stderr)
    return samples


def run(image: str, rounds: int, upload_rounds: int) -> Report:
    """The whole measurement; takes two to three minutes."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        bare = stack.enter_context(bare_python(image))
        service = stack.enter_context(running_service(image))
        warm = WarmSync(service)
        for row in (bare, warm):
            row.run()
        quick: list[tuple[Row, int]] = [
            (warm, 2),
            (bare, 4),
            (DockerRun(image), 1),
            (ColdSync(service), 1),
            (BackToBackSync(service), 3),
        ]
        samples = dict(measure(quick, rounds, service.settle))
        amounts = []
        if upload_rounds:
            archive = stack.enter_context(large_archive(directory))
            upload = UploadSync(service, archive)
            large: list[tuple[Row, int]] = [(DockerExecTar(image, archive), 1), (upload, 1)]
            samples |= measure(large, upload_rounds, service.settle)
            growth = Amount(
                name="server's memory growth, 1 GiB sync",
                mebibytes=upload.memory_growth_bytes / 1024**2,
                at_most=MEMORY_GROWTH_MIB_MAX,
            )
            amounts.append(growth)
    order = (BARE, DOCKER, *samples)
    return Report(
        samples={name: samples[name] for name in order},
        references=(BARE, DOCKER),
        figures=[figure for figure in FIGURES if figure.row in samples],
        amounts=amounts,
        image=image,
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures and every run there"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of the quick rows (%(default)s)")
    parser.add_argument("--upload-rounds", type=int, default=UPLOAD_ROUNDS, help="1 GiB rounds (%(default)s)")
    arguments = parser.parse_args()
    image = os.environ.get("PYEXEC_TEST_IMAGE") or os.environ.get("PYEXEC_DEFAULT_IMAGE")
    if not image:
        parser.error("set PYEXEC_TEST_IMAGE to the image to measure with; `make bench` does")
    report = run(image, arguments.rounds, arguments.upload_rounds)
    print(report.table())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.document(), indent=2) + "\n")


if __name__ == "__main__":
    main()
