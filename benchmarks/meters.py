"""What parts have used: the processor time and the memory of a process, or of all that runs in a control group."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

GROUPS = Path("/sys/fs/cgroup")
TICKS = os.sysconf("SC_CLK_TCK")
VERSION_1 = (GROUPS / "cpuacct").is_dir()
HIERARCHIES = [GROUPS / "cpuacct", GROUPS / "memory"] if VERSION_1 else [GROUPS]


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors since its start, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_bytes(pid: int) -> int:
    """A process's memory, of shared pages its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell the memory of process {pid}")


@frozen
class Group:
    """A control group, of either version. What ended in it, or in groups below it that are gone, still counts."""

    name: str

    def add(self, pid: int) -> None:
        """What this process starts from now on is in the group, too."""
        for hierarchy in HIERARCHIES:
            (hierarchy / self.name / "cgroup.procs").write_text(str(pid))

    def pids(self) -> Sequence[int]:
        """The processes that are in it now, those of groups below it not counted."""
        return [int(pid) for pid in (HIERARCHIES[0] / self.name / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        """What all in it have used of the processors."""
        if VERSION_1:
            return int((GROUPS / "cpuacct" / self.name / "cpuacct.usage").read_text()) / 1e9
        stat = (GROUPS / self.name / "cpu.stat").read_text().split()
        return int(stat[stat.index("usage_usec") + 1]) / 1e6

    def memory_bytes(self) -> int:
        """What the kernel counts as its memory now, with that of the groups below it."""
        if VERSION_1:
            return int((GROUPS / "memory" / self.name / "memory.usage_in_bytes").read_text())
        return int((GROUPS / self.name / "memory.current").read_text())


@contextmanager
def group(name: str, *, with_groups: bool = False) -> Iterator[Group]:
    """A new one, which holds processes or, `with_groups`, other groups; nothing may be left in it at the end."""
    for hierarchy in HIERARCHIES:
        (hierarchy / name).mkdir()
    if with_groups and not VERSION_1:
        (GROUPS / name / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    if with_groups and VERSION_1:
        (GROUPS / "memory" / name / "memory.use_hierarchy").write_text("1")
    try:
        yield Group(name)
    finally:
        # Docker has made those of the same name in every other hierarchy; two names may lead to one.
        for place in {path.resolve() for path in (GROUPS / name, *GROUPS.glob(f"*/{name}")) if path.is_dir()}:
            place.rmdir()
