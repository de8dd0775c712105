"""Test the flag --webhook-url: both command lines send the URL to the server."""

import pytest

from tests.support.canned import Request, canned

URL = "https://hooks.example.com/done?job=7"


@pytest.mark.parametrize("command", [("run", "main.py"), ("submit", "main.py"), ("eval", "1")], ids=" ".join)
def test_the_url_is_sent(lone_program, command):
    sent = []

    def answer(request: Request) -> None:
        length = request.headers["Content-Length"]
        sent.append(request.rfile.read(int(length)) if length else request.body()[0])
        request.say("application/json", b'{"error": "enough", "code": "invalid_request"}', 400)

    lone_program.file("main.py", b"")
    with canned(answer) as url:
        lone_program.run(*command, "--webhook-url", URL, "--server", url)
    (body,) = sent
    assert f'"webhook_url":"{URL}"'.encode() in body.replace(b" ", b"")


def test_an_empty_url_is_wrong_usage(lone_program):
    done = lone_program.run("eval", "1", "--webhook-url", "")
    assert (done.returncode, b"--webhook-url: must not be empty" in done.stderr) == (2, True)
