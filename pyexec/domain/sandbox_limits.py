"""Fixed limits of every sandbox: resource limits, sizes of socket buffers, and hidden files of the kernel.

The Docker adapter sets them, and the isolation check tests them. See docs/design/docker-adapter.md."""

from collections.abc import Mapping, Sequence
from typing import Final

RESOURCE_LIMITS: Final[Mapping[str, int]] = {
    # With 0, the kernel still runs a program to which `core_pattern` pipes the dump, as root. With 1 it does not.
    "core": 1,
    # Per process. With the default PYEXEC_PIDS_MAX, the processes of a sandbox have at most 262,144 descriptors.
    "nofile": 1024,
    "memlock": 64 * 1024,
    # The kernel counts these two for each user id.
    "msgqueue": 819200,
    "sigpending": 1024,
}
"""Soft and hard limits of programs, by their names in Docker and in lower case in Python's `resource`."""
SETUP_RESOURCE_LIMITS: Final[Mapping[str, int]] = {
    "core": 1,
    # A setup may have 1024 processes, so it opens at most a million files. A machine with 24 GiB has 2.4 million.
    "nofile": 1024,
    # A setup runs as root, and the kernel counts message queues for each user id. No installer needs one.
    "msgqueue": 0,
    "sigpending": 1024,
}
"""The same for the commands of setups."""

CLOSED_CONNECTIONS_MAX: Final = 4096
"""How many closed TCP connections may stay in the state TIME-WAIT, for a minute. Each takes 0.35 KiB of the kernel that
counts for no container. The kernel's default is 131,072."""
MULTICAST_GROUPS_MAX: Final = 2
"""How many IPv4 multicast groups a socket of a program may join. Each takes 270 bytes of the kernel that count for no
container. Discovery of services joins one group for each interface."""
TCP_BUFFER_BYTES: Final = 128 * 1024
"""Maximum size of a receive buffer and of a send buffer in a sandbox without network."""
NETWORK_TCP_BUFFER_BYTES: Final = 1024 * 1024
"""The same in a sandbox with network, where it limits the speed of connections to distant machines."""

_DOCKER_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
"""The paths that Docker masks if a request names none. The last one was added by Docker 25."""
MASKED_PATHS: Final[Sequence[str]] = (
    *_DOCKER_MASKED,
    "/proc/buddyinfo",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/key-users",
    "/proc/locks",
    "/proc/modules",
    "/proc/partitions",
    "/proc/pressure",
    "/proc/schedstat",
    "/proc/softirqs",
    "/proc/zoneinfo",
    "/sys/block",
    "/sys/bus",
    "/sys/dev",
    "/sys/fs/btrfs",
    "/sys/fs/ext4",
    "/sys/fs/f2fs",
    "/sys/fs/xfs",
    "/sys/devices/pci0000:00",
    "/sys/devices/virtual/block",
    "/sys/kernel/btf",
    "/sys/kernel/irq",
    "/sys/kernel/notes",
    "/sys/kernel/slab",
    "/sys/kernel/vmcoreinfo",
    "/sys/module",
)
"""Files of the kernel that show other programs' activity, help to attack the kernel, or delay other programs while they
are read, as /proc/locks does, and /proc/fs/ext4, which makes the disk read. No program needs them. Each entry is a
mount, so what only root can read is not in the list."""
SETUP_MASKED_PATHS: Final[Sequence[str]] = (
    *MASKED_PATHS,
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/pagetypeinfo",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    # Each read of its file `hot_add` adds a block device to the machine.
    "/sys/class/zram-control",
)
"""The same for setups, which run as root."""

_KERNEL_FILES = """
    acpi allocinfo asound bootconfig buddyinfo bus cgroups cmdline config.gz consoles cpuinfo crypto device-tree devices
    diskstats dma driver dynamic_debug execdomains fb filesystems fs interrupts iomem ioports irq kallsyms kcore
    key-users keys kmsg kpagecgroup kpagecount kpageflags latency_stats loadavg locks mdstat meminfo misc modules mpt
    mtrr pagetypeinfo partitions pressure sched_debug schedstat scsi slabinfo softirqs spl stat swaps sys sysrq-trigger
    sysvipc timer_list timer_stats tty uptime version version_signature vmallocinfo vmcore vmstat xen zoneinfo
"""
SETUP_READONLY_PATHS: Final[Sequence[str]] = ("/dev", *(f"/proc/{name}" for name in _KERNEL_FILES.split()))
"""Paths that a setup can read but not change. The kernel's files in /proc belong to root, and all containers and the
machine share their owner and mode: after `chmod 0 /proc/meminfo` in one setup, no other user on the machine could read
that file. Docker ignores paths that do not exist."""
