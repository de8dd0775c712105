"""Test how the supervisor counts the memory of sockets, with files in place of those of the kernel."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyexec.guest import sockets
from pyexec.guest.sockets import DATAGRAM_BYTES, FREE, OVERHEAD, READ_MAX, Sockets

BUFFERS_BYTES = 2 * 128 * 1024
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
NETLINK = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
Write = Callable[..., Sockets]


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the kernel's files, and returns what reads them."""

    def write(total: int, queues: list[tuple[int, int]], netlink: int = 0, buffer: int = 131072) -> Sockets:
        files = {
            "sockstat": f"sockets: used {total}\nTCP: inuse 3 orphan 0 tw 0 alloc 5 mem 1\n",
            "tcp": TCP
            + "".join(
                f"   0: 0100007F:1F90 00000000:0000 0A {sent:08X}:{received:08X} 00:00000000 00000000  1000  0 1\n"
                for sent, received in queues
            ),
            "netlink": NETLINK + "0000000000000000 0   1 00000000 0 0 0 2 0 1\n" * netlink,
            "tcp_rmem": f"4096\t131072\t{buffer}\n",
            "tcp_wmem": f"4096\t16384\t{buffer}\n",
        }
        paths = {name: tmp_path / name for name in files}
        for name, text in files.items():
            paths[name].write_text(text)
        monkeypatch.setattr(sockets, "SUMMARY", paths["sockstat"])
        monkeypatch.setattr(
            sockets, "LISTS", [paths["tcp"], tmp_path / "a list that this kernel does not have"]
        )
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


def test_very_many_sockets_count_as_full(counted: Write) -> None:
    assert counted(READ_MAX + 1, []).used() == (READ_MAX + 1) * BUFFERS_BYTES
    assert counted(READ_MAX + 1, [], buffer=4096).used() == (READ_MAX + 1) * DATAGRAM_BYTES
