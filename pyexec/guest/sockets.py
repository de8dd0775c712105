"""Measure the memory of the sockets of a sandbox or a setup, where the kernel does not count it for the container.

Version 1 of control groups does not count the buffers of TCP, UDP, ICMP and netlink sockets; runtimes do not set its
limit for TCP. Version 2 counts those of TCP and UDP, but not their errors, nor the others. See
docs/design/docker-adapter.md. Part of the supervisor (see bootstrap.py) and of a setup's first process."""

import os
import re
import time

from pyexec.guest.socket_diag import SocketDiag

FREE = 64
"""As long as there are no more sockets than this, they count as nothing, and their lists are not read."""
READ_MAX = 4096
"""With more sockets, each of them counts with its maximum, because reading the lists would take too long."""
PAUSE_FACTOR = 15
"""The pause after reading the lists, as a multiple of the time that reading took. Without it, a program with 3,000 idle
sockets kept the supervisor busy for 0.63 s of each second (2026-11-28)."""
SUMMARY = "/proc/net/sockstat"
PROTOCOLS = "/proc/net/protocols"
TCP_LISTS = ["/proc/net/tcp", "/proc/net/tcp6"]
LISTS = ["/proc/net/" + kind + version for kind in ("udp", "icmp") for version in ("", "6")]
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
        self.protocols = open_file(PROTOCOLS) if os.path.exists(PROTOCOLS) else None
        self.lists = [open_file(path) for path in LISTS if os.path.exists(path)]
        self.tcp_lists = [open_file(path) for path in TCP_LISTS if os.path.exists(path)]
        self.diag = SocketDiag()
        self.socket_bytes = max(DATAGRAM_BYTES, sum(map(buffer_bytes, BUFFERS)))
        self.unlisted = self.bytes = 0
        self.count_at = 0.0

    def used(self):
        """Return an upper bound for the bytes that the sockets hold, if there are more than a few.

        It is at most `PAUSE_FACTOR` times as old as reading the lists takes."""
        total = self.total()
        if total <= FREE:
            self.count_at = 0.0
            return 0
        if total > READ_MAX:
            return total * self.socket_bytes
        if time.monotonic() >= self.count_at:
            begun = time.thread_time()
            self.bytes = self.count(total)
            self.count_at = time.monotonic() + PAUSE_FACTOR * (time.thread_time() - begun)
        return self.bytes

    def count(self, total):
        """Return an upper bound for the bytes that the sockets hold, from the kernel's lists."""
        # A program needs one or two netlink sockets, so each of them counts with its maximum.
        full = read_all(self.netlink, READ_MAX * 256).count(b"\n") + self.count_unlisted(total)
        tcp = self.diag.tcp_bytes()
        if tcp is None:
            tcp = sum(map(self.queued, self.tcp_lists))
        return full * self.socket_bytes + tcp + sum(map(self.queued, self.lists))

    def total(self):
        """Return the number of all sockets."""
        return int(read_all(self.summary, CHUNK).split(None, 3)[2])  # "sockets: used 12"

    def count_unlisted(self, total):
        """Return the number of sockets that are in no list: the lower of the counts of this and of the last call.

        A connection that was reset, and a datagram socket that was disconnected, keep the data that they have received,
        but lose their port, and the lists contain only sockets with a port. A socket that closes while this method
        reads also seems to be in no list, but only in one call."""
        if self.protocols is None:
            return 0
        lines = read_all(self.protocols, CHUNK).splitlines()[1:]
        listed = sum(int(line.split(None, 3)[2]) for line in lines)
        before, self.unlisted = self.unlisted, max(0, min(total, self.total()) - listed)
        return min(before, self.unlisted)

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
