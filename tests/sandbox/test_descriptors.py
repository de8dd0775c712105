"""Test programs that take bytes out of pipes which their supervisor reads, or fill those that it writes."""

from tests.support.attack import BRIEF, COMPLETED, OUT_OF_MEMORY, TIMEOUT, Attack, end_of
from tests.support.cases import sampled

STEALS = """
import os, time
file = os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK)
end = time.monotonic() + 0.5
number = 0
while time.monotonic() < end:
    os.write(1, b'x')
    number += 1
    until = time.perf_counter() + number % 40 * 2e-6
    while time.perf_counter() < until: pass
    try:
        os.read(file, 1)
    except BlockingIOError:
        pass
"""
"""Writes bytes that wake the supervisor up, and tries to read them first, at all moments."""
FILLS_ITS_INPUT = """
import os
file = os.open('/proc/self/fd/0', os.O_WRONLY | os.O_NONBLOCK)
while True:
    try:
        os.write(file, bytes(4096))
    except BlockingIOError:
        pass
"""


async def test_stolen_output_does_not_delay_a_limit(attack: Attack) -> None:
    result = await attack(f"{STEALS}\ntime.sleep(60)", config=BRIEF)
    assert (end_of(result), "usage" in result) == (TIMEOUT, True)


async def test_stolen_output_does_not_delay_the_end_of_a_run(attack: Attack) -> None:
    """Another process keeps the pipe open, so that a read of it would not end."""
    result = await attack(f"import os, time\nif os.fork() == 0: time.sleep(60)\n{STEALS}\nos._exit(0)")
    assert (end_of(result), result["duration_ms"] < 10_000) == (COMPLETED, True)


@sampled("size", [0, 1, 1_000_000])
async def test_a_program_that_fills_its_own_input_does_not_delay_a_limit(attack: Attack, size: int) -> None:
    result = await attack(FILLS_ITS_INPUT, stdin="x" * size, config=BRIEF)
    assert (end_of(result), "usage" in result) == (TIMEOUT, True)


@sampled("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"], every=2)
async def test_an_output_pipe_in_flight_does_not_delay_the_end(attack: Attack, end: str) -> None:
    source = f"""
import os, socket
here, there = socket.socketpair()
socket.send_fds(here, [b'x'], [1, 2, there.fileno()])
print('sent', flush=True)
{end}
"""
    result = await attack(source)
    assert (result["status"], result["stdout"], result["duration_ms"] < 10_000) == (
        "completed",
        "sent\n",
        True,
    )


SENDS_A_SOCKET = """
import os, socket, struct, time
listener = socket.create_server(('127.0.0.1', 0))
closing = socket.create_connection(listener.getsockname())
other = listener.accept()[0]
closing.setblocking(False)
try:
    while closing.send(bytes(65536)): pass
except BlockingIOError:
    pass
closing.setblocking(True)
closing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 1000))
print(closing.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
channel = socket.socket(fileno=6)
end = time.monotonic() + 1
while time.monotonic() < end:  # until the supervisor waits between two reads
    channel.send(b'x')
channel.setblocking(False)
while True:
    try:
        socket.send_fds(channel, [b'x'], [closing.fileno()])
    except BlockingIOError:
        continue
    except PermissionError:  # Linux 6.16 and later
        pass
    break
closing.close()
held = [bytearray(b'x' * 2**20) for _ in range(200)]
time.sleep(5)
"""
"""The supervisor closes the socket if it receives the last descriptor of it. The end of the connection would block it
until the other end has read all data."""


async def test_a_socket_in_flight_does_not_block_the_supervisor(attack: Attack) -> None:
    limits = {"timeout_seconds": 20, "memory_mb": 64}
    result = await attack(SENDS_A_SOCKET, config=limits, capture_displays=True)
    assert (end_of(result), result["stdout"]) == (OUT_OF_MEMORY, f"{bytes(8)!r}\n"), result
