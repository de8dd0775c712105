"""Processor time and memory of a process or of a control group."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

CGROUP_ROOT = Path("/sys/fs/cgroup")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
VERSION_1 = (CGROUP_ROOT / "cpuacct").is_dir()
HIERARCHIES = [CGROUP_ROOT / "cpuacct", CGROUP_ROOT / "memory"] if VERSION_1 else [CGROUP_ROOT]


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_bytes(pid: int) -> int:
    """Return the proportional set size (PSS) of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss")


@frozen
class ControlGroup:
    """A control group, version 1 or 2. Its usage includes ended processes and removed subgroups."""

    name: str

    def add(self, pid: int) -> None:
        """Move a process into the group; processes that it starts later are in the group as well."""
        for hierarchy in HIERARCHIES:
            (hierarchy / self.name / "cgroup.procs").write_text(str(pid))

    def pids(self) -> Sequence[int]:
        """List the processes in the group itself, without those in subgroups."""
        return [int(pid) for pid in (HIERARCHIES[0] / self.name / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        """Return the processor time of the group and its subgroups."""
        if VERSION_1:
            return int((CGROUP_ROOT / "cpuacct" / self.name / "cpuacct.usage").read_text()) / 1e9
        stat = (CGROUP_ROOT / self.name / "cpu.stat").read_text().split()
        return int(stat[stat.index("usage_usec") + 1]) / 1e6

    def memory_bytes(self) -> int:
        """Return the present memory of the group and its subgroups."""
        if VERSION_1:
            return int((CGROUP_ROOT / "memory" / self.name / "memory.usage_in_bytes").read_text())
        return int((CGROUP_ROOT / self.name / "memory.current").read_text())


@contextmanager
def control_group(name: str, *, with_subgroups: bool = False) -> Iterator[ControlGroup]:
    """Create a control group for processes or, if `with_subgroups`, for other groups; remove it at the end.

    The group must be empty at the end."""
    for hierarchy in HIERARCHIES:
        (hierarchy / name).mkdir()
    if with_subgroups and not VERSION_1:
        (CGROUP_ROOT / name / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    if with_subgroups and VERSION_1:
        (CGROUP_ROOT / "memory" / name / "memory.use_hierarchy").write_text("1")
    try:
        yield ControlGroup(name)
    finally:
        # In version 1, Docker creates the group in the other hierarchies, too, and some hierarchies are symbolic links.
        candidates = (CGROUP_ROOT / name, *CGROUP_ROOT.glob(f"*/{name}"))
        for directory in {path.resolve() for path in candidates if path.is_dir()}:
            directory.rmdir()
