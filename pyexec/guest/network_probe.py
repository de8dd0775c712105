"""Try to connect to addresses that a program on a network should not reach: the host, and the cloud's metadata service.

The text of this file is the program of a sandbox (`python3 -I -S -c`). It uses only the standard library of Python 3.8
or later, on Linux. Its argument is a JSON array with ports of the host. It prints a report as one line of JSON; the
server judges it."""

import errno
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time

TIMEOUT_SECONDS = 20
"""The probe ends after this time in any case."""
CONNECT_SECONDS = 0.7
"""How long it waits for connections. The host and a metadata service answer within milliseconds."""
METADATA = [
    (address, 80) for address in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
]
"""Of most clouds, and of Alibaba Cloud, Azure (a second service) and Oracle Cloud (the former one)."""
DOCKER_RESOLVER = ("127.0.0.11", 53)
ANSWERS = {0: "open", errno.ECONNREFUSED: "refused"}


def gateway(table):
    """Return the host's address on this network, from the kernel's routing table; None without a default route."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            return socket.inet_ntoa(struct.pack("<L", int(fields[2], 16)))
    return None


def scan(addresses):
    """Return the state of each address: `open`, `refused`, or `closed` (no answer, or a firewall)."""
    states = dict.fromkeys(addresses, "closed")
    with selectors.DefaultSelector() as selector:
        for address in addresses:
            connection = socket.socket()
            connection.setblocking(False)
            error = connection.connect_ex(address)
            if error == errno.EINPROGRESS:
                selector.register(connection, selectors.EVENT_WRITE, address)
            else:
                states[address] = ANSWERS.get(error, "closed")
                connection.close()
        end = time.monotonic() + CONNECT_SECONDS
        while selector.get_map() and time.monotonic() < end:
            for key, _ in selector.select(end - time.monotonic()):
                error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                states[key.data] = ANSWERS.get(error, "closed")
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return states


def main():
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(TIMEOUT_SECONDS)
    with open("/proc/net/route") as file:
        host = gateway(file.read())
    services = [(host, port) for port in json.loads(sys.argv[1])] if host else []
    states = scan([*services, *METADATA, DOCKER_RESOLVER])
    metadata, resolver = [states.pop(address) for address in METADATA], states.pop(DOCKER_RESOLVER)
    ports = {port: state for (_, port), state in states.items()}
    report = {answer: sorted(port for port in ports if ports[port] == answer) for answer in ANSWERS.values()}
    report.update(host=host, metadata="open" in metadata, docker_resolver=resolver == "open")
    os.write(1, json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    main()
