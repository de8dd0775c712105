"""On a terminal: one line that tells the phase, until the program's output comes."""

import subprocess

import pytest

CLEARED = b"\r\x1b[K"


def test_the_phase_is_told_and_taken_away(program):
    program.file("main.py", "import time\ntime.sleep(0.5)\nprint('output')")
    screen = program.on_a_terminal("main.py", stdout=subprocess.DEVNULL)
    assert CLEARED + b"python-executor: queued" in screen
    assert CLEARED + b"python-executor: running" in screen
    assert screen.endswith(CLEARED)
    assert b"\n" not in screen


@pytest.mark.parametrize("arguments", [("-q", "main.py"), ("submit", "main.py")])
def test_there_is_none_when_quiet_or_when_nothing_is_waited_for(program, arguments):
    program.file("main.py", "print('output')")
    assert program.on_a_terminal(*arguments, stdout=subprocess.DEVNULL) == b""


def test_an_error_stands_on_a_line_of_its_own(program):
    screen = program.on_a_terminal("--image", "no-such-image:nowhere", "run", program.file("x.py"))
    assert CLEARED + b"pulling no-such-image:nowhere\r\n" in screen
    assert b"\r\npython-executor: execution failed (image_unavailable): " in screen
