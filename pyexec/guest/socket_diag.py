"""Ask the kernel how much memory each TCP socket of the network namespace holds (sock_diag(7)).

`/proc/net/tcp` shows only data to send and to receive. A socket also has a queue of errors, which holds time stamps of
sent data. Any call of `sendmsg` can ask for them, in memory that no filter of system calls can read. Part of the
supervisor (see bootstrap.py)."""

import ctypes
import os
import struct

AF_INET, AF_INET6, AF_NETLINK, IPPROTO_TCP = 2, 10, 16, 6
SOCK_RAW, SOCK_CLOEXEC, SOCK_NONBLOCK = 3, 0o2000000, 0o4000
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
REQUEST_DUMP = 0x301
"""NLM_F_REQUEST and NLM_F_DUMP."""
ERROR, DONE = 2, 3
"""NLMSG_ERROR and NLMSG_DONE, types of messages."""
MEMORY = 7
"""INET_DIAG_SKMEMINFO: how much memory of each kind the socket holds."""
STATES = 0xFFF & ~(1 << 6)
"""All states except TIME_WAIT."""
HEADER = struct.Struct("=IHHII")
"""nlmsghdr: size, type, flags, sequence number, port."""
REQUEST = struct.Struct("=BBBxI48x")
"""inet_diag_req_v2: family, protocol, attributes, states; without addresses."""
MESSAGE_BYTES = HEADER.size + 72
"""Size of the header and of inet_diag_msg, after which the attributes begin."""
ATTRIBUTE = struct.Struct("=HH")
"""rtattr: size, type."""
FIGURES = struct.Struct("=8I")
RECEIVE_BYTES = 64 * 1024


class SocketDiag:
    """A netlink socket. Only the supervisor can open one, before it installs its filter of system calls."""

    def __init__(self):
        kind = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK
        self.fd = ctypes.CDLL(None).socket(AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        self.sequence = 0

    def tcp_bytes(self):
        """Return the bytes in the queues of all TCP sockets; None if the kernel does not list them."""
        if self.fd < 0:
            return None
        try:
            return self.bytes_of(AF_INET) + self.bytes_of(AF_INET6)
        except OSError:
            return None

    def bytes_of(self, family):
        """Return the bytes in the queues of the TCP sockets of a family. Raises `OSError`.

        Messages that a failed request has left are skipped by their sequence number."""
        self.sequence += 1
        request = REQUEST.pack(family, IPPROTO_TCP, 1 << (MEMORY - 1), STATES)
        header = HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, self.sequence, 0)
        os.write(self.fd, header + request)
        total = 0
        while True:
            data = os.read(self.fd, RECEIVE_BYTES)
            at = 0
            while at < len(data):
                size, kind, _, sequence, _ = HEADER.unpack_from(data, at)
                if sequence == self.sequence:
                    if kind == DONE:
                        return total
                    if kind == ERROR:
                        raise OSError("the kernel does not list sockets")
                    total += held_bytes(data, at + MESSAGE_BYTES, at + size)
                at += (size + 3) & ~3


def held_bytes(data, at, end):
    """Return the bytes in the queues of a socket, from the attributes of its message."""
    while at < end:
        size, kind = ATTRIBUTE.unpack_from(data, at)
        if kind == MEMORY:
            received, _, _, _, _, to_send, _, backlog = FIGURES.unpack_from(data, at + ATTRIBUTE.size)
            return received + to_send + backlog
        at += (size + 3) & ~3
    return 0
