"""Test the decoding of requirements.txt, which is as in pip: by the byte order mark, otherwise UTF-8."""

import codecs
import json
import tarfile

import pytest

from tests.support.archives import END, member
from tests.support.canned import Request, canned

TEXT = "six==1.16.0  # grüße 🐍\nidna\n"
MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
def test_a_byte_order_mark_selects_the_encoding(lone_program, encoding):
    sent = []

    def answer(request: Request) -> None:
        length = request.headers["Content-Length"]
        body = request.rfile.read(int(length)) if length else request.body()[0]
        sent.append(json.loads(body)["requirements_txt"])
        request.say("application/json", b'{"error": "enough", "code": "invalid_request"}', 400)

    lone_program.file("requirements.txt", MARKS[encoding] + TEXT.encode(encoding))
    with canned(answer) as url:
        lone_program.run("eval", "1", "--requirements", "requirements.txt", "--server", url)
    assert sent == [TEXT]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"six \xff", b"not UTF-8 text (invalid byte at offset 4)"),
        (codecs.BOM_UTF16_LE + b"s", b"not UTF-16 text"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8", b"not UTF-16 text"),
        (codecs.BOM_UTF16_BE + b"\xd8\x00\x00a", b"not UTF-16 text"),
        (codecs.BOM_UTF16_BE + b"\xdc\x00", b"not UTF-16 text"),
        (codecs.BOM_UTF32_LE + b"\x00\x00\x11\x00", b"not UTF-32 text"),
        (codecs.BOM_UTF32_BE + b"\x00\x00\xd8\x00", b"not UTF-32 text"),
    ],
)
def test_text_that_does_not_match_its_encoding_is_refused(lone_program, content, said):
    lone_program.file("requirements.txt", content)
    done = lone_program.run("eval", "1", "--requirements", "requirements.txt")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["run -", "eval -", "repl", "session new -", "run main.py --stdin -", "eval 1 --stdin -"],
)
def test_standard_input_is_not_read_twice(lone_program, arguments):
    lone_program.file("main.py", b"")
    done = lone_program.run(*arguments.split(), "--requirements", "-", stdin=b"six")
    assert done.returncode == 2
    assert b"--requirements -: " in done.stderr
    assert b"standard input already" in done.stderr


@pytest.mark.parametrize("command", [("run", "main.py"), ("submit", "project"), ("eval", "1")], ids=" ".join)
@pytest.mark.parametrize("flag", [(), ("--no-requirements",)], ids=" ".join)
def test_inline_requirements_are_turned_off_by_the_flag(lone_program, command, flag):
    sent = []

    def answer(request: Request) -> None:
        length = request.headers["Content-Length"]
        sent.append(request.rfile.read(int(length)) if length else request.body()[0])
        request.say("application/json", b'{"error": "enough", "code": "invalid_request"}', 400)

    lone_program.file("main.py", b"")
    lone_program.file("project/main.py", b"")
    lone_program.file("project/requirements.txt", b"six\n")
    with canned(answer) as url:
        lone_program.run(*command, *flag, "--server", url)
    (body,) = sent
    assert (b'"inline_requirements":false' in body.replace(b" ", b"")) == bool(flag)
    assert (b"requirements_txt" in body) == (command[0] == "submit" and not flag)


def test_the_last_requirements_of_a_tar_count(lone_program):
    """The server unpacks an archive in the same way, as `tar -r` makes it."""
    sent = []

    def answer(request: Request) -> None:
        sent.append(request.body()[0])
        request.say("application/json", b'{"error": "enough", "code": "invalid_request"}', 400)

    texts = [("main.py", "1"), ("requirements.txt", "old\n"), ("./requirements.txt", "new\n"), ("data", "")]
    lone_program.file("project.tar", b"".join(member(*each) for each in texts) + END)
    with canned(answer) as url:
        lone_program.run("project.tar", "--server", url)
    assert b'"requirements_txt":"new\\n"' in sent[0].replace(b" ", b"")


def test_a_damaged_tar_is_left_to_the_server(lone_program):
    def answer(request: Request) -> None:
        request.body()
        request.say("application/json", b'{"error": "enough", "code": "invalid_request"}', 400)

    header = member("x", "22 GNU.sparse.map=a,b\n", kind=tarfile.XHDTYPE)
    lone_program.file("project.tar", member("main.py", "1") + header + member("y") + END)
    with canned(answer) as url:
        ended = lone_program.run("project.tar", "--server", url)
    assert (ended.returncode, b"by the server: enough" in ended.stderr) == (2, True)


def test_eval_refuses_flags_that_contradict_each_other(lone_program):
    lone_program.file("requirements.txt", b"six\n")
    done = lone_program.run("eval", "1", "--requirements", "requirements.txt", "--no-requirements")
    assert (done.returncode, b"cannot be used together" in done.stderr) == (2, True)
