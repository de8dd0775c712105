"""Test the commands for sessions with a real server."""

import os
import subprocess

from tests.cli.conftest import Program, read_until


def test_use_a_session_from_the_command_line(program: Program, session_image: str) -> None:
    opened = program.run("session", "new", "--image", session_image, "--memory", "128", "--disk", "64")
    assert opened.returncode == 0, opened.stderr
    session = opened.stdout.decode().strip()
    try:
        data = os.urandom(3_000_000)
        program.file("data.bin", data)
        assert program.run("session", "upload", session, "data.bin", "in/").stderr == b""
        assert program.run("session", "files", session, "in/*", "-q").stdout == b"     3000000  in/data.bin\n"
        code = b"x = open('in/data.bin', 'rb').read(); open('out.bin', 'wb').write(x[::-1])\n"
        assert program.run("repl", "--session", session, "-q", stdin=code).stdout == b"3000000\n"
        assert program.run("session", "download", session, "out.bin", "-").stdout == data[::-1]
        assert program.run("session", "delete", session, "in/data.bin").returncode == 0
        missing = program.run("session", "download", session, "in/data.bin", "missing")
        assert (missing.returncode, (program.directory / "missing").exists()) == (125, False)
        missing = program.run("session", "delete", session, "in/data.bin")
        assert (missing.returncode, missing.stdout) == (125, b"")

        assert program.run("session", "interrupt", session).stdout == b"idle\n"
        with program.started("repl", "--session", session, "-q", stdin=subprocess.PIPE) as repl:
            repl.stdin.write(b"import time; print('started', flush=True); time.sleep(60)\n")
            read_until(repl.stdout, b"started")
            assert program.run("session", "interrupt", session).stdout == b"interrupted\n"
            assert repl.wait(20) == 1
        keeps = program.run("repl", "--session", session, "-q", stdin=b"len(x)\n")
        assert keeps.stdout == b"3000000\n"
        assert program.run("session", "restart", session).stdout == b"restarted\n"
        lost = program.run("repl", "--session", session, "-q", stdin=b"x\n")
        assert (lost.returncode, b"NameError" in lost.stderr) == (1, True)
    finally:
        assert program.run("session", "close", session).stdout == b"closed\n"
