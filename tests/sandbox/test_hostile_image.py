"""Test an image with a hostile interpreter: whatever it sends instead of a supervisor, only its own run fails."""

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import hostile_supervisor
from tests.support.archives import script
from tests.support.attack import BRIEF, COMPLETED, CPU_LIMIT, OUTPUT_LIMIT, TIMEOUT, Attack, end_of
from tests.support.cases import sampled

IMAGE = f"pyexec-test-hostile:{secrets.token_hex(4)}"
INTERNAL = ("failed", "internal", None)


@pytest.fixture(scope="module")
def hostile(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build an image whose python3 is the hostile supervisor; yield its name."""
    context = tmp_path_factory.mktemp("hostile")
    real = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        image,
        "python3",
        "-c",
        "import sys; print(sys.executable)",
    ]
    shown = subprocess.run(real, check=True, capture_output=True, text=True)
    source = Path(hostile_supervisor.__file__).read_text()
    (context / "python3").write_text(f"#!/usr/bin/env -S {shown.stdout.strip()}.real -I -S\n{source}")
    (context / "python3").chmod(0o755)
    (context / "Dockerfile").write_text(
        f"FROM {image}\nCOPY python3 /\n"
        f"RUN real=$(readlink -f {shown.stdout.strip()}) && ln -s $real {shown.stdout.strip()}.real"
        f" && rm -f {shown.stdout.strip()} && mv /python3 {shown.stdout.strip()}\n"
    )
    subprocess.run(
        ["docker", "build", "-q", "--network", "none", "-t", IMAGE, context], check=True, capture_output=True
    )
    yield IMAGE
    subprocess.run(["docker", "rmi", "-f", IMAGE], check=True, capture_output=True)


@pytest.fixture
def lying_first(hostile: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Build an image that sends false frames before any input; yield its name."""
    name = f"pyexec-test-lying:{secrets.token_hex(4)}"
    (tmp_path / "Dockerfile").write_text(f"FROM {hostile}\nENV LIE_FIRST={request.param}\n")
    subprocess.run(["docker", "build", "-q", "-t", name, tmp_path], check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)


@sampled(
    ("lie", "ends"),
    [
        ("nothing", [TIMEOUT]),
        ("only_started", [TIMEOUT]),
        ("no_end", [INTERNAL]),
        ("garbage", [INTERNAL]),
        ("long_frame", [INTERNAL]),
        ("deep_json", [INTERNAL]),
        ("large_json", [INTERNAL]),
        ("endless_starts", [INTERNAL]),
        ("no_base64", [INTERNAL]),
        ("impossible_end", [INTERNAL]),
        ("endless_exit_code", [INTERNAL]),
        ("unknown_reason", [INTERNAL]),
        ("empty_frames", [TIMEOUT]),
        ("endless_output", [OUTPUT_LIMIT]),
        ("bits_of_output", [TIMEOUT]),
        ("bytes_in_turn", [TIMEOUT, OUTPUT_LIMIT]),  # which limit comes first depends on the machine
        ("endless_result", [INTERNAL]),
        ("endless_errors", [TIMEOUT]),
        ("two_ends", [COMPLETED]),
    ],
    every=5,
)
async def test_false_frames_fail_only_their_own_run(
    attack: Attack, hostile: str, lie: str, ends: Sequence[tuple[str, str | None, int | None]]
) -> None:
    result = await attack(f"# LIE={lie}\n", docker_image=hostile, config={"timeout_seconds": 2})
    assert end_of(result) in ends, {**result, "stdout": result["stdout"][:99]}
    assert len(result["stdout"]) + len(result["stderr"]) <= 1024 * 1024
    assert len(result.get("error", "")) < 1000


async def test_the_server_enforces_the_limit_of_processor_time_alone(attack: Attack, hostile: str) -> None:
    result = await attack("# LIE=busy\n", docker_image=hostile, config={"cpu_seconds": 0.1})
    assert end_of(result) == CPU_LIMIT


async def test_a_false_frame_after_the_end_costs_only_the_sandbox(attack: Attack, hostile: str) -> None:
    """The server reads it while the sandbox is cleaned for the next program."""
    for _ in range(2):
        result = await attack("# LIE=infinite_transfer\n", docker_image=hostile)
        assert end_of(result) == COMPLETED


@sampled(
    "lie",
    ["file_elsewhere", "endless_file", "endless_files", "no_end", "nothing", "false_report", "endless_skips"],
    every=5,
)
async def test_forged_output_files_have_no_unsafe_paths(attack: Attack, hostile: str, lie: str) -> None:
    result = await attack(f"# LIE={lie}\n", docker_image=hostile, config=BRIEF, output_files=["**"])
    assert result["status"] in ("completed", "failed")
    names = {file["path"] for file in result.get("files", ())}
    assert not any(".." in name or name.startswith("/") for name in names)
    assert {each["reason"] for each in result["files_skipped"]} <= {"not_collected", "timeout"}


@pytest.mark.full
async def test_too_many_switches_between_streams_exceed_the_output_limit(
    attack: Attack, hostile: str
) -> None:
    """The order of the pieces is stored, which takes more memory than the bytes."""
    result = await attack("# LIE=bytes_in_turn\n", docker_image=hostile)
    assert end_of(result) == OUTPUT_LIMIT
    assert "changed" in result["error"]


@sampled("lying_first", ["ready_and_endless", "refused", "endless"], indirect=True, every=3)
async def test_false_frames_before_the_program_fail_only_their_own_run(
    attack: Attack, lying_first: str
) -> None:
    """After several requests, the pool also starts such a sandbox ahead of demand."""
    for _ in range(3):
        answer = await attack.api.sync(script("print(1)"), {"docker_image": lying_first, "config": BRIEF})
        assert answer.status in (200, 503), answer
        assert answer.status == 503 or answer.document["status"] == "failed"
