"""Test how the supervisor counts the memory of sockets, with files in place of those of the kernel."""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyexec.guest import sockets
from pyexec.guest.socket_diag import SocketDiag
from pyexec.guest.sockets import DATAGRAM_BYTES, FREE, OVERHEAD, READ_MAX, Sockets

BUFFERS_BYTES = 2 * 128 * 1024
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
NETLINK = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
PROTOCOLS = "protocol  size sockets  memory press maxhdr\nTCP 2304 {} 7 no 320\nUNIX 1024 0 -1 NI 0\n"
Write = Callable[..., Sockets]


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the kernel's files, and returns what reads them."""

    def write(
        total: int,
        queues: list[tuple[int, int]],
        netlink: int = 0,
        buffer: int = 131072,
        listed: int | None = None,
        pause: float = 0,
    ) -> Sockets:
        files = {
            "sockstat": f"sockets: used {total}\nTCP: inuse 3 orphan 0 tw 0 alloc 5 mem 1\n",
            "tcp": TCP
            + "".join(
                f"   0: 0100007F:1F90 00000000:0000 0A {sent:08X}:{received:08X} 00:00000000 00000000  1000  0 1\n"
                for sent, received in queues
            ),
            "protocols": PROTOCOLS.format(total if listed is None else listed),
            "netlink": NETLINK + "0000000000000000 0   1 00000000 0 0 0 2 0 1\n" * netlink,
            "tcp_rmem": f"4096\t131072\t{buffer}\n",
            "tcp_wmem": f"4096\t16384\t{buffer}\n",
        }
        paths = {name: tmp_path / name for name in files}
        for name, text in files.items():
            paths[name].write_text(text)
        monkeypatch.setattr(sockets, "SUMMARY", paths["sockstat"])
        monkeypatch.setattr(
            sockets, "TCP_LISTS", [paths["tcp"], tmp_path / "a list that this kernel does not have"]
        )
        monkeypatch.setattr(sockets, "LISTS", [])
        monkeypatch.setattr(sockets, "PAUSE_FACTOR", pause)
        monkeypatch.setattr(sockets, "PROTOCOLS", str(paths["protocols"]))
        monkeypatch.setattr(SocketDiag, "tcp_bytes", lambda _: None)  # as under another profile
        monkeypatch.setattr(sockets, "NETLINK", paths["netlink"])
        monkeypatch.setattr(sockets, "BUFFERS", (paths["tcp_rmem"], paths["tcp_wmem"]))
        return Sockets()

    return write


def test_a_few_sockets_count_as_nothing(counted: Write) -> None:
    assert counted(FREE, [(1 << 20, 1 << 20)] * FREE).used() == 0


def test_data_in_sockets_counts_at_most_as_their_buffers(counted: Write) -> None:
    queues = [(0, 0), (1, 0), (0, 10), (1 << 20, 1 << 20)]
    heading = BUFFERS_BYTES  # that of the list of netlink sockets counts as one
    used = counted(FREE + 1, queues).used()
    assert used == heading + OVERHEAD * (1 + 10) + BUFFERS_BYTES
    assert counted(FREE + 1, queues, netlink=3).used() == used + 3 * BUFFERS_BYTES


def test_sockets_that_no_list_shows_count_as_full_from_the_second_time_on(counted: Write) -> None:
    """Sockets that close between two reads of the supervisor look like them."""
    opened = counted(FREE + 1, [], listed=FREE - 2)
    assert [opened.used() for _ in range(3)] == [BUFFERS_BYTES, 4 * BUFFERS_BYTES, 4 * BUFFERS_BYTES]
    assert counted(FREE + 1, [], listed=FREE + 9).used() == BUFFERS_BYTES


def test_the_lists_are_not_read_all_the_time(counted: Write) -> None:
    idle = counted(FREE + 1, [], pause=1e6)
    before = idle.used()
    counted(FREE + 1, [(1 << 20, 1 << 20)], pause=1e6)
    assert idle.used() == before
    counted(FREE, [], pause=1e6)
    assert idle.used() == 0
    counted(FREE + 1, [(1 << 20, 1 << 20)], pause=1e6)
    assert idle.used() > before


def test_the_kernel_tells_the_memory_of_each_tcp_socket() -> None:
    """The connections hold 2 MiB. Other processes of this machine hold data, too, and may read it at any time."""
    diag, connections, size = SocketDiag(), 32, 1 << 16
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(connections):
            sender = stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
            sender.sendall(bytes(size))
        held = diag.tcp_bytes()
    os.close(diag.fd)
    assert held is not None
    assert held >= connections * size


def test_very_many_sockets_count_as_full(counted: Write) -> None:
    assert counted(READ_MAX + 1, []).used() == (READ_MAX + 1) * BUFFERS_BYTES
    assert counted(READ_MAX + 1, [], buffer=4096).used() == (READ_MAX + 1) * DATAGRAM_BYTES
