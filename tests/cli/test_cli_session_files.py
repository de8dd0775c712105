"""Test the commands that interrupt and restart a session, and those for its files, with a server in memory."""

import json
import subprocess

import pytest

from tests.cli.conftest import Program, wait_until_running
from tests.support.fake_cells import FakeSession
from tests.support.fake_sessions import FakeSessions


@pytest.fixture
def session(cli: Program, fake: tuple[str, FakeSessions]) -> FakeSession:
    return fake[1].sessions[cli.run("session", "new").stdout.decode().strip()]


def test_interrupt_and_restart(cli: Program, session: FakeSession) -> None:
    idle = cli.run("session", "interrupt", session.id)
    assert (idle.returncode, idle.stdout, idle.stderr) == (0, b"idle\n", b"")
    with cli.started("repl", "--session", session.id, stdin=subprocess.PIPE) as repl:
        repl.stdin.write(b"sleep\n")
        wait_until_running(session)
        assert cli.run("session", "interrupt", session.id).stdout == b"interrupted\n"
        assert repl.wait(20) == 1
    restarted = cli.run("session", "restart", session.id)
    assert (restarted.returncode, restarted.stdout, session.restarts) == (0, b"restarted\n", 1)


def test_files_are_uploaded_listed_downloaded_and_deleted(cli: Program, session: FakeSession) -> None:
    big = bytes(range(256)) * 10_000
    cli.file("data/big.bin", big)
    targets = ((), ("a b/c.bin",), ("d/",), ("/work/e/",), ("/work/f.bin",))
    for arguments in [("data/big.bin", *target) for target in targets]:
        done = cli.run("session", "upload", session.id, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert cli.run("session", "upload", session.id, "-", "in.txt", stdin=b"piped").returncode == 0
    sent = ["big.bin", "a b/c.bin", "d/big.bin", "e/big.bin", "f.bin", "in.txt"]
    assert session.files == dict.fromkeys(sent, big) | {"in.txt": b"piped"}

    listed = cli.run("session", "files", session.id, "*.txt").stdout
    assert listed == b"        SIZE  PATH\n           5  in.txt\n"
    quiet = cli.run("session", "files", session.id, "-q").stdout.decode().splitlines()
    assert [line.split(maxsplit=1)[1] for line in quiet] == sent
    document = cli.run("session", "files", session.id, "in*", "--json").stdout
    assert (document, json.loads(document)["size"]) == (b'{"path": "in.txt", "size": 5}\n', 5)

    (cli.directory / "got").mkdir()
    for arguments, name in (((), "c.bin"), (("got",), "got/c.bin"), (("new.bin",), "new.bin")):
        done = cli.run("session", "download", session.id, "a b/c.bin", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert (cli.directory / name).read_bytes() == big
    for path in ("in.txt", "/work/in.txt"):
        assert cli.run("session", "download", session.id, path, "-").stdout == b"piped"
    folder = cli.run("session", "download", session.id, "in.txt", "none/")
    assert (folder.returncode, folder.stderr) == (125, b"python-executor: none/: Is a directory\n")
    assert not (cli.directory / "none").exists()

    assert cli.run("session", "delete", session.id, "in.txt").returncode == 0
    assert "in.txt" not in session.files


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("interrupt", "ses_unknown"), 125, b"no such session"),
        (("restart", "a b"), 2, b"ses_0123abcd"),
        (("download", "{id}", "missing"), 125, b"the session has no such file"),
        (("download", "{id}", "/"), 2, b"invalid file path"),
        (("upload", "{id}", "/dev/null", "/etc/passwd"), 2, b"it must be below /work"),
        (("upload", "{id}", "/dev/null", "../x"), 2, b"'../x': it must have a name, and no '.' or '..'\n"),
        (("upload", "{id}", "missing"), 2, b"Error: missing: No such file or directory\n"),
        (("upload", "{id}", "."), 2, b"Error: .: Is a directory\n"),
        (("upload", "{id}", "-"), 2, b"Error: Missing argument 'PATH': standard input has no name.\n"),
        (("upload", "{id}"), 2, b"Error: Missing argument 'FILE'.\n"),
        (("delete", "{id}"), 2, b"Error: Missing argument 'PATH'.\n"),
        (("files", "{id}", "a", "b"), 2, b"Error: Got unexpected extra argument (b)\n"),
    ],
)
def test_errors(
    cli: Program, session: FakeSession, arguments: tuple[str, ...], code: int, message: bytes
) -> None:
    done = cli.run("session", *[each.format(id=session.id) for each in arguments])
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr
    assert not (cli.directory / "missing").exists()


def test_a_closed_standard_input_is_empty(cli: Program, session: FakeSession) -> None:
    for command in ("repl -q", f"session upload {session.id} - empty", f"repl -q --session {session.id}"):
        done = cli.shell(f"$P {command} <&-")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert session.files == {"empty": b""}


def test_a_download_that_breaks_fails(cli: Program, session: FakeSession) -> None:
    done = cli.run("session", "download", session.id, "breaks")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"python-executor: ")
    assert (cli.directory / "breaks").read_bytes() == b"begin"


def test_a_closed_session_is_an_error(cli: Program, session: FakeSession) -> None:
    cli.run("session", "close", session.id)
    for arguments in (("interrupt", session.id), ("restart", session.id), ("delete", session.id, "a")):
        done = cli.run("session", *arguments)
        assert (done.returncode, done.stdout) == (125, b"")
        assert b"the session is closed" in done.stderr
