"""Test programs that take bytes out of pipes which their supervisor reads, or fill those that it writes."""

from tests.support.attack import BRIEF, COMPLETED, TIMEOUT, Attack, end_of
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
