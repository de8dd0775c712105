"""Test what the command lines do with displays: files, names on stderr, and images on terminals that show them."""

import base64
import fcntl
import json
import os
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any
from zlib import crc32

import pytest
from attrs import evolve
from PIL import Image

from pyexec_cli.sixel import sixel_sequence
from tests.cli.conftest import Program
from tests.support.canned import Request, canned
from tests.support.cases import sampled

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
RESULT: dict[str, Any] = {
    "execution_id": "exe_1",
    "status": "completed",
    "exit_code": 0,
    "started_at": "2026-01-01T00:00:00Z",
    "stdout": "",
    "stderr": "",
    "result": "42",
    "displays": [
        {"data": {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}, "metadata": {}},
        {"data": {"text/html": "<b>", "text/plain": "bold"}, "metadata": {}},
        {"data": {"application/json": {"a": [1]}}, "metadata": {}},
        {"data": {"text/plain": "text"}, "metadata": {}},
    ],
    "truncated": {"stdout": False, "stderr": False, "displays": True},
}
FILES = {
    "display-1.png": PNG,
    "display-2.html": b"<b>",
    "display-4.txt": b"text",
}
DROPPED = "python-executor: some displays were dropped: they exceed the server's limit, or are malformed\n"
NOT_SHOWN = "python-executor: displays not shown: {} (--output-dir DIR saves them)\n"


def answer(request: Request, bodies: list[bytes]) -> None:
    if "content-length" in request.headers:
        bodies.append(request.rfile.read(int(request.headers["content-length"])))
    elif request.headers.get("transfer-encoding"):
        bodies.append(request.body()[0])
    if request.path == "/api/v1/eval":
        request.say("application/json", json.dumps(RESULT).encode())
    else:
        request.say_events(
            ("submitted", {"execution_id": "exe_1"}),
            ("running", {"execution_id": "exe_1"}),
            ("display", RESULT["displays"][0]),
            ("finished", RESULT),
        )


@pytest.fixture
def bodies() -> list[bytes]:
    """The bodies of the requests that the program has sent."""
    return []


@pytest.fixture
def showing(lone_program, bodies) -> Iterator[Any]:
    with canned(lambda request: answer(request, bodies)) as url:
        yield evolve(lone_program, server=url)


@pytest.mark.parametrize(
    "command", [("eval", "42"), ("run", "main.py"), ("follow", "exe_1")], ids=lambda c: c[0]
)
def test_displays_are_saved_and_named(showing, command) -> None:
    showing.file("main.py", "pass")
    done = showing.run(*command, "--output-dir", "got")
    assert done.returncode == 0, done.stderr
    directory = showing.directory / "got"
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".json"} == FILES
    assert json.loads((directory / "display-3.json").read_bytes()) == {"a": [1]}
    names = ("display-1.png", "display-2.html", "display-3.json", "display-4.txt")
    stderr = done.stderr.decode()
    assert stderr.endswith("".join(f"python-executor: wrote got/{name}\n" for name in names) + DROPPED)


def requests_displays(bodies: list[bytes]) -> bool:
    [body] = bodies
    bodies.clear()
    return b'"capture_displays":true' in body.replace(b" ", b"")


def test_run_requests_displays_if_it_saves_or_shows_them(showing, bodies) -> None:
    showing.file("main.py", "pass")
    for flag, requested in ((), False), (("--displays",), True), (("--output-dir", "got"), True):
        showing.run("main.py", *flag, KITTY_WINDOW_ID="1")
        assert requests_displays(bodies) == requested
    for environment, flag, requested in (
        ({"KITTY_WINDOW_ID": "1"}, (), True),
        ({"KITTY_WINDOW_ID": "1"}, ("--json",), False),
        ({"TERM": "xterm-256color"}, (), False),
    ):
        screen, _ = on_a_terminal(showing, "run", "main.py", *flag, **environment)
        assert requests_displays(bodies) == requested
        assert (b"\x1b_Ga=T" in screen) == requested


@pytest.mark.parametrize("environment", [{}, {"KITTY_WINDOW_ID": "1"}, {"TERM_PROGRAM": "WezTerm"}])
def test_without_a_directory_and_a_terminal_a_note_says_so(showing, environment) -> None:
    done = showing.run("eval", "42", **environment)
    assert (done.stdout, done.stderr.decode()) == (b"42\n", NOT_SHOWN.format(4) + DROPPED)
    assert showing.run("-q", "eval", "42").stderr == b""
    assert list(showing.directory.iterdir()) == []


@sampled(
    ("environment", "protocol"),
    [
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, None),
        ({"KITTY_WINDOW_ID": "1", "TERM": "screen-256color"}, None),
        ({"TERM": "xterm-256color"}, None),
    ],
)
def test_images_are_shown_on_a_terminal_that_says_it_can(showing, environment, protocol) -> None:
    screen, stderr = on_a_terminal(showing, "eval", "42", **environment)
    text = base64.b64encode(PNG)
    shown = {
        "kitty": b"\x1b_Ga=T,f=100,m=1;%s\x1b\\\x1b_Gm=0;%s\x1b\\\r\n" % (text[:4096], text[4096:]),
        "iterm2": b"\x1b]1337;File=inline=1;size=%d:%s\a\r\n" % (len(PNG), text),
        None: b"",
    }
    assert len(text) < 2 * 4096
    asked = b"\x1b[c" if protocol is None and "TERM" in environment else b""
    assert screen == b"42\r\n" + asked + shown[protocol]
    assert stderr.decode() == NOT_SHOWN.format(3 if protocol else 4) + DROPPED


@contextmanager
def serving_a_picture() -> Iterator[str]:
    """Run a server whose programs show a picture with a red rectangle, and a malformed image. Yield its URL."""
    picture = Image.new("RGBA", (50, 14), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (3, 2, 40, 13))
    content = BytesIO()
    picture.save(content, "PNG")
    display = {"data": {"image/png": base64.b64encode(content.getvalue()).decode()}, "metadata": {}}
    result = {**RESULT, "displays": [display, RESULT["displays"][0]]}

    def say(request: Request) -> None:
        request.rfile.read(int(request.headers["content-length"]))
        request.say("application/json", json.dumps(result).encode())

    with canned(say) as url:
        yield url


@pytest.mark.parametrize("attributes", [b"62;4;22", b"62;14;22"], ids=["sixel", "no images"])
def test_the_terminal_is_asked_for_sixel_graphics(lone_program, attributes) -> None:
    with serving_a_picture() as url:
        program = evolve(lone_program, server=url)
        screen, stderr = on_a_terminal(program, "eval", "42", attributes=attributes, TERM="xterm-256color")
    shown = screen.partition(b"\x1b[c")[2]
    if b"4" in attributes.split(b";"):
        red, white = (100, 0, 0), (100, 100, 100)
        pixels = {(x, y): red if 3 <= x < 40 and 2 <= y < 13 else white for x in range(50) for y in range(14)}
        assert pixels_of(shown) == pixels
        assert stderr.decode() == NOT_SHOWN.format(1) + DROPPED  # the other image is malformed
    else:
        assert shown == b""
        assert stderr.decode() == NOT_SHOWN.format(2) + DROPPED


def test_a_terminal_is_not_asked_if_the_user_has_typed_ahead(lone_program) -> None:
    """The answer could not be told from the input, which belongs to the next program."""
    with serving_a_picture() as url:
        program = evolve(lone_program, server=url)
        screen, stderr = on_a_terminal(program, "eval", "42", typed=b"next\n", TERM="xterm-256color")
    assert b"\x1b[c" not in screen
    assert stderr.decode() == NOT_SHOWN.format(2) + DROPPED


def test_malformed_and_very_wide_images_have_no_sixel_sequence() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    content = BytesIO()
    Image.new("RGB", (2, 2)).save(content, "PNG")
    png = content.getvalue()
    end = png.index(b"IEND") - 4
    assert sixel_sequence(png) is not None
    assert (
        sixel_sequence(png[:end] + chunk(b"iCCP", b"a\0") + png[end:]) is None
    )  # Pillow raises an IndexError
    wide = BytesIO()
    Image.new("L", (8193, 1)).save(wide, "PNG")
    assert sixel_sequence(wide.getvalue()) is None


def test_without_pillow_a_note_says_how_to_see_the_images(paths, tmp_path) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "PIL.py").write_text("raise ImportError")
    with serving_a_picture() as url:
        program = Program("python", paths["python"], url, tmp_path)
        environment = {"TERM": "xterm-256color", "PYTHONPATH": str(hiding)}
        screen, stderr = on_a_terminal(program, "eval", "42", attributes=b"62;4;22", **environment)
    assert screen == b"42\r\n\x1b[c"
    advice = "--output-dir DIR saves them; pip install pillow shows images on this terminal"
    assert stderr.decode() == f"python-executor: displays not shown: 2 ({advice})\n" + DROPPED


def pixels_of(sequence: bytes) -> dict[tuple[int, int], tuple[int, ...]]:
    """Decode sixel graphics: return the color of each pixel, in percent of red, green and blue."""
    found = re.fullmatch(rb'\x1bPq"1;1;\d+;\d+((?:#\d+;2;\d+;\d+;\d+)+)(.*)\x1b\\\r\n', sequence, re.DOTALL)
    assert found, sequence
    colors = {
        int(number): tuple(map(int, parts))
        for number, *parts in re.findall(rb"#(\d+);2;(\d+);(\d+);(\d+)", found[1])
    }
    pixels = {}
    for band, rows in enumerate(found[2].split(b"-")):
        for number, row in re.findall(rb"#(\d+)([^#$]+)", rows):
            line = re.sub(rb"!(\d+)(.)", lambda run: int(run[1]) * run[2], row)
            for x, character in enumerate(line):
                lit = (bit for bit in range(6) if (character - 63) >> bit & 1)
                pixels.update({(x, 6 * band + bit): colors[int(number)] for bit in lit})
    return pixels


def on_a_terminal(
    program,
    *arguments: str,
    attributes: bytes = b"62;22",
    typed: bytes = b"",
    **environment: str,
) -> tuple[bytes, bytes]:
    """Run the program with standard output on its controlling terminal. Return what the terminal shows, and standard
    error.

    If the terminal is asked, it answers with these attributes. The user types `typed` before the program starts."""
    hidden = ("TERM", "TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL")
    inherited = {name: value for name, value in program.environment({}).items() if name not in hidden}
    controller, terminal = os.openpty()
    os.write(controller, typed)
    try:
        with program.started(
            *arguments,
            stdout=terminal,
            stderr=subprocess.PIPE,
            env=inherited | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
        ) as process:
            os.close(terminal)
            screen = b""
            with suppress(OSError):  # EIO: the program has closed the terminal
                while piece := os.read(controller, 65536):
                    screen += piece
                    if piece.endswith(b"\x1b[c"):
                        _, output, _, local, *_ = termios.tcgetattr(controller)
                        assert not local & (termios.ICANON | termios.ECHO)
                        assert local & termios.ISIG, "Ctrl-C is ignored"
                        assert output & termios.OPOST, "line ends have no carriage return"
                        os.write(controller, b"\x1b[?%sc" % attributes)
            return screen, process.stderr.read()
    finally:
        os.close(controller)
