"""Test `session` and `repl` with a server in memory."""

import json
import os
import re

import pytest

from tests.cli.conftest import Program
from tests.support.fake_sessions import FakeSessions

ID = re.compile(r"ses_[0-9a-f]{32}\n")


def test_open_list_show_and_close(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    cli.file("requirements.txt", "numpy\n")
    opened = cli.run(
        *("session", "new", "--requirements", "requirements.txt", "-e", "A=1", "--image", "python:3.13"),
        *("--pre-command", "true", "--idle-timeout", "60", "--lifetime", "1.5e3", "--timeout", "5"),
    )
    assert (opened.returncode, opened.stderr) == (0, b"")
    assert ID.fullmatch(opened.stdout.decode())
    session = opened.stdout.decode().strip()
    assert fake[1].sessions[session].request == {
        "docker_image": "python:3.13",
        "requirements_txt": "numpy\n",
        "env_vars": ["A=1"],
        "pre_commands": ["true"],
        "idle_timeout_seconds": 60,
        "lifetime_seconds": 1500,
        "config": {"timeout_seconds": 5},
    }
    listed = cli.run("session", "list").stdout.decode().splitlines()
    assert listed[0].split() == ["ID", "STATUS", "CREATED", "WAITING", "IMAGE"]
    [row] = [line.split() for line in listed if session in line]
    assert row == [session, "open", "2026-01-01T00:00:00Z", "0", "python:3.13"]
    documents = map(json.loads, cli.run("session", "list", "--json", "-q").stdout.splitlines())
    assert session in [each["id"] for each in documents]
    assert json.loads(cli.run("session", "show", session).stdout)["status"] == "open"
    for _ in range(2):
        assert cli.run("session", "close", session).stdout == b"closed\n"


def test_a_session_gets_the_files_of_its_input(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    cli.file("data/a.csv", "1,2")
    opened = json.loads(cli.run("--server", str(cli.server), "session", "new", "data", "--json").stdout)
    assert fake[1].sessions[opened["id"]].files == {"a.csv": b"1,2"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("session", "new", "--image", "none"), 2, b"docker_image none is not allowed"),
        (("session", "show", "ses_unknown"), 125, b"no such session"),
        (("session", "close", "a b"), 2, b"ses_0123abcd"),
        (("session", "new", "/missing"), 2, b"Error: /missing: no such file or directory\n"),
        (("session", "new", "print(1)"), 2, b"Error: print(1): no such file or directory\n"),
        (("session", "files", "ses_1", ""), 2, b"GLOB: must not be empty"),
        (("session", "new", "--idle-timeout", "0"), 2, b"must be a positive number"),
        (("session", "new", "--async"), 2, b"--async"),
        (("repl", "--session", "ses_1", "--lifetime", "5"), 2, b"--session"),
        (("repl", "--session", "ses_unknown"), 125, b"no such session"),
    ],
)
def test_errors(cli: Program, arguments: tuple[str, ...], code: int, message: bytes) -> None:
    ended = cli.run(*arguments)
    assert (ended.returncode, ended.stdout) == (code, b"")
    assert message in ended.stderr


def test_the_repl_runs_statements_of_a_pipe(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    script = b"""x = [
  6,
]

def f(n):
    # a comment

    return n * 7

f(x[0])
print("a", end="")
s = '''one
two'''
s
for n in range(2):
    print(n)
else:
    print("end")

"last"
"""
    before = len(fake[1].requests)
    ended = cli.run("repl", "-q", stdin=script)
    codes = [request["code"] for request in fake[1].requests[before:]]
    assert codes[0] == "x = [\n  6,\n]"
    assert codes[-1] == '"last"'
    assert ended.stdout.endswith(b"0\n1\nend\n'last'\n")
    assert ended.returncode == 0


PIPED = {
    "a blank line in a block": ["if 1:\n    a = 1\n\n    b = 2\n", "a + b"],
    "a block without a blank line after it": ["for n in ():\n    n", "'next'", "if 1: pass", "'last'"],
    "a comment in a block": [
        "class A:\n    def f(self):\n        pass\n# not indented\n    def g(self): pass\n",
        "1",
    ],
    "a clause after a blank line": [
        "try:\n    1 / 0\n\nexcept ZeroDivisionError:\n    b = 2\n\nelse:\n    pass",
        "b",
    ],
    "a string in a block": ["def f():\n    return '''\nnot indented\n\n'''\n", "f()"],
    "a decorator": ["@staticmethod\ndef f(): pass\n", "@staticmethod\n\ndef g():\n    pass"],
    "two blocks": ["def f(): pass\n\n", "def g():\n\n    pass\n", "while 0:\n  (1,\n2)"],
}


@pytest.mark.parametrize("name", PIPED)
def test_statements_of_a_pipe_end_as_in_a_file(
    cli: Program, fake: tuple[str, FakeSessions], name: str
) -> None:
    before = len(fake[1].requests)
    ended = cli.run("repl", "-q", stdin="\n".join(PIPED[name]).encode())
    codes = [request["code"] for request in fake[1].requests[before:] if "code" in request]
    assert [code.rstrip("\n") for code in codes] == [code.rstrip("\n") for code in PIPED[name]], ended


def test_a_block_of_a_pipe_before_exit_runs(cli: Program, fake: tuple[str, FakeSessions]) -> None:
    ended = cli.run("repl", "-q", stdin=b"if 1:\n    print('in')\n\nexit\nprint('never')\n")
    assert (ended.returncode, ended.stdout) == (0, b"in\n")


def test_a_piped_file_may_have_crlf_and_a_byte_order_mark(
    cli: Program, fake: tuple[str, FakeSessions]
) -> None:
    before = len(fake[1].requests)
    ended = cli.run(
        "repl", "-q", stdin=b"\xef\xbb\xbfmatch 1:\r\n  case 1:\r\n    x = 2\r\n\r\nx + \\\r\n1\r\n"
    )
    codes = [request["code"].rstrip("\n") for request in fake[1].requests[before:] if "code" in request]
    assert codes == ["match 1:\n  case 1:\n    x = 2", "x + \\\n1"]
    assert (ended.returncode, ended.stdout) == (0, b"3\n")


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [("1 / 0", 1, b"ZeroDivisionError"), ("die", 124, b"timeout"), ("leave 3", 3, b"")],
)
def test_a_statement_of_a_pipe_that_fails_is_the_last_one(
    cli: Program, fake: tuple[str, FakeSessions], statement: str, code: int, message: bytes
) -> None:
    ended = cli.run("repl", stdin=f"1\n{statement}\n2\n".encode())
    assert (ended.returncode, ended.stdout) == (code, b"1\n")
    assert message in ended.stderr
    assert not list(fake[1].sessions.values())[-1].is_open
    assert cli.run("repl", stdin=statement.encode()).returncode == code


def test_the_repl_closes_its_own_session_and_leaves_another_one_open(
    cli: Program, fake: tuple[str, FakeSessions]
) -> None:
    cli.run("repl", stdin=b"x = 1\n")
    own = list(fake[1].sessions.values())[-1]
    assert not own.is_open
    opened = cli.run("session", "new").stdout.decode().strip()
    cli.run("repl", "--session", opened, "--timeout", "7", stdin=b"y = 5")
    assert fake[1].requests[-1] == {"code": "y = 5", "timeout_seconds": 7}
    ended = cli.run("repl", "--session", opened, stdin=b"y\nexit\nz\n")
    assert ended.stdout == b"5\n"
    assert fake[1].sessions[opened].is_open


def test_displays_of_a_session_have_running_numbers(cli: Program) -> None:
    ended = cli.run("repl", "--output-dir", "shown", stdin=b"show\n1\nshow\n")
    assert sorted(os.listdir(cli.directory / "shown")) == ["display-1.png", "display-2.png"]
    assert b"wrote shown/display-2.png" in ended.stderr
    assert b"displays not shown: 1" in cli.run("repl", stdin=b"show\n").stderr


def test_the_text_of_a_display_is_printed_if_no_better_form_is_shown_or_saved(cli: Program) -> None:
    ended = cli.run("repl", stdin=b"text\ntable\n")
    assert ended.stdout == b"a text\na table\n"
    assert b"not shown" not in ended.stderr
    saved = cli.run("repl", "--output-dir", "saved", stdin=b"text\ntable\n")
    assert saved.stdout == b"a text\n"
    assert b"wrote saved/display-2.html" in saved.stderr


def test_a_value_with_a_display_is_printed_once(cli: Program) -> None:
    assert cli.run("repl", stdin=b"frame\n").stdout == b"a\nframe\n"
    assert cli.run("repl", "--output-dir", "got", stdin=b"frame\n").stdout == b"a\nframe\n"


def test_a_new_interpreter_is_reported(cli: Program) -> None:
    ended = cli.run("repl", stdin=b"die\n")
    assert b"execution failed (timeout): it ran longer than 1 s" in ended.stderr
    assert b"its variables are lost" in ended.stderr
