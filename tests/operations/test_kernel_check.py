"""Test what `--check` says of this machine's kernel, with files in place of the kernel's."""

from pathlib import Path

import pytest

from pyexec.preflight.check_result import CheckResult, Verdict
from pyexec.preflight.kernel import MACHINE_PIDS, check_kernel
from pyexec.settings import Settings


def checked(settings: Settings, directory: Path, namespace: str = MACHINE_PIDS) -> list[CheckResult]:
    """Return the results for the files in this directory."""
    link = directory / "pid"
    link.unlink(missing_ok=True)
    link.symlink_to(namespace)
    return list(check_kernel(settings, directory, directory / "gc_thresh3", link))


def write_kernel(directory: Path, core_pattern: str = "core", pid_max: int = 32768) -> None:
    (directory / "core_pattern").write_text(f"{core_pattern}\n")
    (directory / "pid_max").write_text(f"{pid_max}\n")
    (directory / "threads-max").write_text("192731\n")


@pytest.mark.parametrize(
    ("pattern", "verdict"), [("core", Verdict.OK), ("|/usr/share/apport/apport -p%p", Verdict.WARNING)]
)
def test_a_program_that_gets_core_dumps_is_a_warning(tmp_path: Path, pattern: str, verdict: str) -> None:
    write_kernel(tmp_path, core_pattern=pattern)
    settings = Settings(docker_socket=tmp_path / "docker.sock")
    found, *_ = checked(settings, tmp_path)
    assert (found.verdict, "'/usr/share/apport/apport'" in found.text) == (verdict, pattern != "core")
    remote = Settings(docker_host="tcp://10.0.0.1:2376")
    assert checked(remote, tmp_path) == []


@pytest.mark.parametrize(
    ("concurrent", "setup_network", "total", "verdict"),
    [
        (40, "pyexec-setup", 56 * 256 + 2 * 1024, Verdict.OK),
        (42, "pyexec-setup", 58 * 256 + 2 * 1024, Verdict.WARNING),
        (42, "none", 58 * 256, Verdict.OK),
        (60, "none", 76 * 256, Verdict.WARNING),
    ],
)
def test_programs_and_setups_that_could_use_up_all_process_ids_are_a_warning(
    tmp_path: Path, concurrent: int, setup_network: str, total: int, verdict: str
) -> None:
    write_kernel(tmp_path)
    settings = Settings(
        max_concurrent=concurrent, pids_max=256, max_setups=2, run_network="none", setup_network=setup_network
    )
    _, found, *_ = checked(settings, tmp_path)
    assert (found.verdict, f"may start {total} of this machine's 32768 " in found.text) == (verdict, True)
    write_kernel(tmp_path, pid_max=4194304)
    _, found, *_ = checked(settings, tmp_path)
    assert found.verdict is Verdict.OK


def test_setups_may_have_more_processes_than_programs(tmp_path: Path) -> None:
    write_kernel(tmp_path)
    settings = Settings(max_concurrent=1, max_sessions=0, pids_max=16, max_setups=3)
    _, found, *_ = checked(settings, tmp_path)
    assert f"may start {16 + 3 * 1024} of" in found.text


@pytest.mark.parametrize(
    ("entries", "network", "verdicts"),
    [
        (1024, "pyexec-run", [Verdict.WARNING]),
        (262144, "pyexec-run", [Verdict.OK]),
        (1024, "none", []),
    ],
)
def test_a_small_table_of_neighbours_is_a_warning(
    tmp_path: Path, entries: int, network: str, verdicts: list[Verdict]
) -> None:
    write_kernel(tmp_path)
    (tmp_path / "gc_thresh3").write_text(f"{entries}\n")
    settings = Settings(run_network=network, setup_network=network)
    found = checked(settings, tmp_path)[2:]
    assert [result.verdict for result in found] == verdicts


@pytest.mark.parametrize(("concurrent", "verdict"), [(8, Verdict.OK), (60, Verdict.WARNING)])
def test_values_of_a_container_are_not_reported_as_those_of_the_machine(
    tmp_path: Path, concurrent: int, verdict: Verdict
) -> None:
    write_kernel(tmp_path, pid_max=4194304)
    settings = Settings(max_concurrent=concurrent, pids_max=256, max_setups=2)
    _, processes, neighbours = checked(settings, tmp_path, namespace="pid:[4026532331]")
    assert (processes.verdict, "4194304" in processes.text) == (verdict, False)
    total = (concurrent + 16) * 256 + 2 * 1024
    assert f"kernel.pid_max and kernel.threads-max are at least {2 * total} there" in processes.text
    assert neighbours.verdict is Verdict.WARNING
    assert "run sysctl net.ipv4.neigh.default.gc_thresh3 on the machine" in neighbours.text
