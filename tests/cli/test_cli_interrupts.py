"""Test signals: the first one kills the execution, the second one exits."""

import ctypes
import os
import pty
import signal
import socket
import subprocess

import pytest

from tests.cli.conftest import interrupt, read_until

LOOP = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def killed_id(stderr: bytes) -> str:
    return "exe_" + stderr.split(b"exe_")[1].split()[0].decode()


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_first_signal_kills_the_execution(program, number, exit_code):
    program.file("main.py", LOOP)
    with program.started("-v", "main.py") as process:
        read_until(process.stdout, b"up\n")
        interrupt(process, [number])
        _, stderr = process.communicate()
    assert process.returncode == exit_code
    done = program.run("follow", killed_id(stderr))
    assert done.returncode == 125
    assert b"killed" in done.stderr


def test_second_signal_exits(program):
    program.file("main.py", LOOP)
    with program.started("-v", "main.py") as process:
        read_until(process.stdout, b"up\n")
        interrupt(process, [signal.SIGINT, signal.SIGINT])
        _, stderr = process.communicate()
    assert process.returncode == 130
    done = program.run("follow", killed_id(stderr))
    assert done.returncode == 125  # closing the connection kills the execution too


def test_second_signal_exits_while_the_server_does_not_answer(program, server):
    program.file("main.py", LOOP)
    with program.started("-v", "main.py") as process:
        read_until(process.stdout, b"up\n")
        server.process.send_signal(signal.SIGSTOP)
        try:
            interrupt(process)
            read_until(process.stderr, b"killing")
            interrupt(process)
            assert process.wait() == 130
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_interrupt_before_the_server_has_answered(lone_program):
    lone_program.file("main.py", LOOP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with lone_program.started("--server", url, "main.py") as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(1)
                interrupt(process)
                assert process.wait() == 130
                assert process.stderr.read() == b""


def test_ctrl_c_in_a_terminal(program):
    program.file("main.py", LOOP)
    controller, terminal = pty.openpty()

    def take_controlling_terminal() -> None:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with program.started(
        "main.py", stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=take_controlling_terminal
    ) as process:
        os.close(terminal)
        screen = b""
        while b"up" not in screen:
            screen += os.read(controller, 100)
        os.write(controller, b"\x03")
        assert process.wait() == 130
    os.close(controller)


@pytest.mark.parametrize("thread", ["any", "another"])
def test_interrupt_while_reading_standard_input(program, thread):
    with program.started(stdin=subprocess.PIPE) as process:
        left = memoryview(b"#" * 1_000_000)
        while left:  # more than a pipe holds: when all is written, the program is reading
            left = left[process.stdin.write(left) :]
        if thread == "any":
            interrupt(process)
        else:
            interrupt_another_thread(process.pid)
        assert process.wait() == 130


def interrupt_another_thread(pid: int) -> None:
    """Send SIGINT to a thread that is not the main one, so that it does not end a wait of the main thread."""
    thread = max(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    assert thread != pid
    assert ctypes.CDLL(None).tgkill(pid, thread, signal.SIGINT) == 0


def test_an_ignored_signal_stays_ignored(program):
    program.file("main.py", "import time\nprint('up', flush=True)\ntime.sleep(1)\nprint('end')")
    ignored = 'trap \'\' HUP; exec "$0" "$@"'
    with subprocess.Popen(
        ["bash", "-c", ignored, program.path, "main.py"],
        cwd=program.directory,
        env=program.environment({}),
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        read_until(process.stdout, b"up\n")
        interrupt(process, [signal.SIGHUP])
        assert process.stdout.read() == b"end\n"
    assert process.returncode == 0


def test_interrupting_follow_does_not_kill_the_execution(program):
    execution_id = program.run("submit", stdin=LOOP.encode()).stdout.decode().strip()
    with program.started("follow", "--tail", execution_id) as process:
        read_until(process.stdout, b"up\n")
        interrupt(process)
        assert process.wait() == 130
    assert program.run("kill", execution_id).stdout == b"killed\n"
