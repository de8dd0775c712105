"""Test the status line on a terminal: it shows the phase until output arrives."""

import subprocess

import pytest

CLEARED = b"\r\x1b[K"


def test_the_status_line_shows_the_phase_and_is_erased(program):
    program.file("main.py", "import time\ntime.sleep(0.5)\nprint('output')")
    screen = program.on_a_terminal("main.py", stdout=subprocess.DEVNULL)
    assert CLEARED + b"python-executor: queued" in screen
    assert CLEARED + b"python-executor: running" in screen
    assert screen.endswith(CLEARED)
    assert b"\n" not in screen


@pytest.mark.parametrize("arguments", [("-q", "main.py"), ("submit", "main.py")])
def test_no_status_line_with_quiet_or_submit(program, arguments):
    program.file("main.py", "print('output')")
    assert program.on_a_terminal(*arguments, stdout=subprocess.DEVNULL) == b""


def test_an_error_starts_on_a_new_line(program):
    screen = program.on_a_terminal("--image", "no-such-image:nowhere", "run", program.file("x.py"))
    assert CLEARED + b"pulling no-such-image:nowhere\r\n" in screen
    assert b"\r\npython-executor: execution failed (image_unavailable): " in screen
