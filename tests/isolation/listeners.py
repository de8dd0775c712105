"""Services of this machine that a program may try to reach."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def listening(address: str) -> Iterator[int]:
    """Listen at an address of this machine; yield the port."""
    with socket.create_server((address, 0)) as service:
        thread = threading.Thread(target=accept_all, args=(service,), name="service")
        thread.start()
        yield service.getsockname()[1]
        service.shutdown(socket.SHUT_RDWR)
        thread.join()


def connections() -> int:
    """Return how many connections the kernel tracks, of all containers and of the machine itself."""
    return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())


def accept_all(service: socket.socket) -> None:
    try:
        while True:
            service.accept()[0].close()
    except OSError:
        return
