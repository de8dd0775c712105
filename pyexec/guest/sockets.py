"""Measure the memory of a sandbox's sockets, where the kernel does not count it for the container.

Version 1 of control groups does not count the buffers of TCP, UDP and netlink sockets; runtimes do not set its limit
for TCP. Version 2 counts them. See docs/design/docker-adapter.md. Part of the supervisor (see bootstrap.py)."""

import os
import re

FREE = 64
"""As long as there are no more sockets than this, they count as nothing, and their lists are not read."""
READ_MAX = 4096
"""With more sockets, each of them counts with its maximum, because reading the lists would take too long."""
SUMMARY = "/proc/net/sockstat"
LISTS = ["/proc/net/" + kind + version for kind in ("tcp", "udp", "icmp") for version in ("", "6")]
NETLINK = "/proc/net/netlink"
QUEUES = re.compile(b" ([0-9A-F]{8}):([0-9A-F]{8}) ")
"""The bytes in the send buffer and in the receive buffer of a socket, in a line of these lists."""
EMPTY = (b"00000000", b"00000000")
BUFFERS = ("/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem")
DATAGRAM_BYTES = 212992
"""The kernel's size of a buffer of other sockets."""
OVERHEAD = 2048
"""The kernel uses at most this many bytes of memory for one byte of data, which is a packet of its own."""
CHUNK = 64 * 1024


class Sockets:
    """The sockets in the container's network namespace.

    All files stay open, because opening a file takes memory of the container."""

    def __init__(self):
        self.summary, self.netlink = open_file(SUMMARY), open_file(NETLINK)
        self.lists = [open_file(path) for path in LISTS if os.path.exists(path)]
        self.socket_bytes = max(DATAGRAM_BYTES, sum(map(buffer_bytes, BUFFERS)))

    def used(self):
        """Return an upper bound for the bytes that the sockets hold, if there are more than a few."""
        total = int(read_all(self.summary, CHUNK).split(None, 3)[2])  # "sockets: used 12"
        if total <= FREE:
            return 0
        if total > READ_MAX:
            return total * self.socket_bytes
        # A program needs one or two netlink sockets, so each of them counts with its maximum.
        netlink = read_all(self.netlink, READ_MAX * 256).count(b"\n")
        return netlink * self.socket_bytes + sum(map(self.queued, self.lists))

    def queued(self, fd):
        """Return an upper bound for the bytes that the sockets in a list hold."""
        queues = [pair for pair in QUEUES.findall(read_all(fd, READ_MAX * 256)) if pair != EMPTY]
        return sum(
            min(self.socket_bytes, OVERHEAD * (int(sent, 16) + int(received, 16)))
            for sent, received in queues
        )


def open_file(path):
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def buffer_bytes(path):
    """Return the maximum size of a TCP buffer, the last of three numbers."""
    with open(path) as file:
        return int(file.read().split()[2])


def read_all(fd, size_max):
    """Return the content of an open file of /proc, up to about `size_max` bytes."""
    os.lseek(fd, 0, os.SEEK_SET)
    parts, size = [], 0
    while size < size_max:
        part = os.read(fd, CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)
