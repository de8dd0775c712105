"""Test programs that print too much, in unusual ways or to wrong descriptors, and programs that do not read."""

import pytest

from tests.support.attack import BRIEF, COMPLETED, OUTPUT_LIMIT, TIMEOUT, Attack, end_of
from tests.support.cases import sampled

MOST = 1024 * 1024
FLOOD = "import os\nwhile True: os.write({fd}, b'x' * 65536)"
BOTH = "import os\nwhile True:\n os.write(1, b'o' * 999)\n os.write(2, b'e' * 999)"
BYTE_BY_BYTE = "import os\nwhile True: os.write(1, b'x')"
BYTES_IN_TURN = "import os\nwhile True:\n os.write(1, b'o')\n os.write(2, b'e')"
BY_CHILDREN = "import os\nfor _ in range(3): os.fork()\nwhile True: os.write(1, b'x' * 4096)"
BINARY = "import os\nwhile True: os.write(1, bytes(range(256)) * 16)"


@sampled(
    "source",
    [
        pytest.param(FLOOD.format(fd=1), id="stdout"),
        pytest.param(FLOOD.format(fd=2), id="stderr"),
        pytest.param(BOTH, id="both"),
        pytest.param(BYTE_BY_BYTE, id="byte by byte"),
        pytest.param(BYTES_IN_TURN, id="bytes in turn"),
        pytest.param(BY_CHILDREN, id="by children"),
        pytest.param(BINARY, id="binary"),
    ],
    every=3,
)
async def test_a_flood_ends_at_the_limit(attack: Attack, source: str) -> None:
    result = await attack(source)
    assert end_of(result) == OUTPUT_LIMIT
    assert result["error"] == f"the program printed more than {MOST} bytes and was stopped"
    path = f"/api/v1/executions/{result['execution_id']}/logs"
    async with attack.api.session.get(path) as answer:
        assert len(await answer.read()) == MOST


@sampled("unit", ["x", "\\0", "\\u20ac", "\\r", "\\x1b[2J", "\\ud800"])
async def test_one_very_long_line_is_whole(attack: Attack, unit: str) -> None:
    result = await attack(
        f"import sys\nunit = '{unit}'.encode(errors='surrogatepass')\n"
        f"sys.stdout.buffer.write(unit * ({MOST} // len(unit)))"
    )
    assert end_of(result) == COMPLETED
    sent = unit.encode().decode("unicode_escape").encode(errors="surrogatepass")
    assert result["stdout"] == (sent * (MOST // len(sent))).decode("utf-8", "replace")


async def test_forged_frames_count_as_output(attack: Attack) -> None:
    forged = b'X\0\0\0\x11{"reason":"exit"}\nG\0\0\0\0\nR\0\0\0\2{}\nE\xff\xff\xff\xff'
    result = await attack(f"import os, sys\nos.write(1, {forged!r})\nos.write(2, {forged!r})\nsys.exit(7)")
    assert end_of(result) == ("completed", None, 7)
    assert result["stdout"] == result["stderr"] == forged.decode("utf-8", "replace")


async def test_slow_output_is_kept_until_the_timeout(attack: Attack) -> None:
    source = "import os, time\nwhile True:\n os.write(1, b'o')\n os.write(2, b'e')\n time.sleep(0.001)"
    result = await attack(source, config=BRIEF)
    assert end_of(result) == TIMEOUT
    assert len(result["stdout"]) > 10


async def test_closed_or_replaced_output_descriptors_do_not_change_the_exit_code(attack: Attack) -> None:
    source = """
import os
for number in range(256):
    try:
        os.close(number)
    except OSError:
        pass
for _ in range(8):
    os.open('/dev/zero', os.O_RDWR)
os.write(1, b'nowhere')
os._exit(3)
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"], result["stderr"]) == (("completed", None, 3), "", "")


async def test_a_pipe_held_by_inflight_descriptors_is_closed(attack: Attack) -> None:
    """The program's end of the pipe is in flight in a socket that is in flight in itself. Only the kernel's garbage
    collector can close it."""
    source = """
import array, os, socket
one, other = socket.socketpair()
for here, there in ((one, other), (other, one)):
    rights = array.array('i', [1, 2, here.fileno(), there.fileno()])
    here.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
print('sent')
"""
    result = await attack(source)
    assert (end_of(result), result["stdout"]) == (COMPLETED, "sent\n")


async def test_a_full_enlarged_pipe_does_not_block_the_end_of_the_run(attack: Attack) -> None:
    source = """
import fcntl, os
fcntl.fcntl(1, 1031, 1 << 20)
os.set_blocking(1, False)
for _ in range(100):
    try:
        os.write(1, b'x' * 8192)
    except BlockingIOError:
        pass
os._exit(0)
"""
    assert end_of(await attack(source)) == COMPLETED


@pytest.mark.parametrize("stdin", ["", "x" * 5_000_000])
async def test_unread_stdin_does_not_block_the_end_of_the_run(attack: Attack, stdin: str) -> None:
    assert end_of(await attack("print('busy')", stdin=stdin)) == COMPLETED
