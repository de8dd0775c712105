"""Test the parser of tracebacks on text: any text, in chunks of any size, in linear time."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.crash import Crash
from pyexec.domain.traceback import TracebackParser, parse_traceback
from pyexec.domain.traceback_markers import MARKER, find_marker
from tests.support.cases import sampled

FAKE = 'Traceback (most recent call last):\\n  File \\"/x.py\\", line 7, in f\\nFakeError: no'


@given(
    st.text()
    | st.lists(
        st.sampled_from([FAKE, "Traceback (most recent call last):", "  | ", "E: x", '  File "', "\n"])
    ).map("".join)
)
def test_any_text_is_read_without_an_error(text: str) -> None:
    crash = parse_traceback(text)
    assert crash is None or (crash.error_type and crash.error)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ("[Errno 101] Network is unreachable", True),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", True),
        ("<urlopen error [Errno -3] Try again>", True),
        ("Cannot connect to host a.example:80 ssl:default [Temporary failure in name resolution]", True),
        (
            "HTTPConnectionPool(host='a', port=80): ... (Caused by NewConnectionError('[Errno 101] Network ...'))",
            True,
        ),
        ("[Errno 111] Connection refused", False),
        ("[Errno 110] Connection timed out", False),
        ("[Errno 1012] no such thing", False),
    ],
)
def test_network_errors_are_recognized_by_the_messages_of_the_c_library(error: str, wanted: bool) -> None:
    assert Crash(error_type="OSError", error=error, error_line=1).is_network_error is wanted


def test_a_script_in_another_encoding_has_an_error_without_a_traceback() -> None:
    text = "Non-UTF-8 code starting with '\\xe9' in file /work/main.py on line 7, but no encoding declared"
    assert parse_traceback(f"SyntaxError: {text}\n") == Crash(
        error_type="SyntaxError", error=text, error_line=7
    )
    text = "encoding problem: nope"
    assert parse_traceback(f"SyntaxError: {text}\n") == Crash(
        error_type="SyntaxError", error=text, error_line=None
    )


@pytest.mark.parametrize("kind", ["ValueError", "SyntaxError"])
def test_a_script_with_a_null_byte_has_an_error_without_a_traceback(kind: str) -> None:
    text = "source code string cannot contain null bytes"
    assert parse_traceback(f"{kind}: {text}\n") == Crash(error_type=kind, error=text, error_line=None)


def test_a_long_exception_name_is_cut() -> None:
    text = f'Traceback (most recent call last):\n  File "/work/main.py", line 1, in <module>\n{"A" * 60_000}: x\n'
    crash = parse_traceback(text)
    assert crash == Crash(error_type="A" * 200, error="x", error_line=1)


def test_packages_of_the_user_are_not_the_users_own_files() -> None:
    frames = '  File "/work/main.py", line 3, in <module>\n  File "/work/.local/lib/site-packages/x.py", line 9, in f\n'
    crash = parse_traceback(f"Traceback (most recent call last):\n{frames}OSError: no\n")
    assert crash == Crash(error_type="OSError", error="no", error_line=3)


def test_the_script_may_be_below_the_root_and_its_path_relative() -> None:
    text = 'Traceback (most recent call last):\n  File "pkg/run.py", line 3, in <module>\nOSError: '
    text += text
    crash = parse_traceback(text + "no\n", script="pkg/run.py")
    assert (crash.error_type, crash.error_line) == ("OSError", 3)


lines = st.sampled_from(
    [
        "Traceback (most recent call last):",
        '  File "/work/main.py", line 4, in <module>',
        '  File "/work/x.py", line 7, in f',
        '  File "/work/main.py", line 5',
        "    1 / 0",
        "    ~~^~~",
        "",
        "ValueError: bad",
        "KeyError",
        "some text: €",
        "During handling of the above exception, another exception occurred:",
        "The above exception was the direct cause of the following exception:",
        "Exception ignored in: <function A.__del__ at 0x7f>",
        "Exception in thread Thread-1 (f):",
        "Original exception was:",
        "sys:1: ResourceWarning: unclosed file",
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "/work/main.py", line 8, in <module>',
        "  | ExceptionGroup: g (2 sub-exceptions)",
        "  +-+---------------- 1 ----------------",
        "    | ValueError: 1",
        "    +------------------------------------",
    ]
)


@given(st.lists(lines, max_size=30), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_chunk_boundaries_do_not_matter(text: list[str], steps: list[int]) -> None:
    data, at, parser = "\n".join(text).encode(), 0, TracebackParser()
    for step in itertools.cycle(steps):
        parser.feed(data[at : at + step])
        at += step
        if at >= len(data):
            break
    assert parser.finish() == parse_traceback(data.decode())


WORST = {
    "empty lines": b"\n",
    "headings": b"Traceback (most recent call last):\n",
    "frames": b'  File "/work/main.py", line 4, in <module>\n',
    "tracebacks": b'Traceback (most recent call last):\n  File "/work/main.py", line 4, in <module>\nE: x\n',
    "groups": b"  + Exception Group Traceback (most recent call last):\n",
    "margins": b"  | \n",
    "a line": b"x",
    "colons": b":1",
    "warnings": b":1: a",
    "names": b"a.",
    "spaces": b" ",
    "quotes": b'  File "',
    "headings after text": b"x Traceback (most recent call last):\n",
}


@sampled("which", WORST)
@pytest.mark.parametrize("before", [b"", b"Traceback (most recent call last):\n"])
def test_time_is_linear_and_memory_is_bounded(which: str, before: bytes) -> None:
    def seconds(size: int, step: int) -> float:
        data = before + WORST[which] * (size // len(WORST[which]))
        best = 1e9
        for _ in range(3):
            parser, start = TracebackParser(), time.process_time()
            for at in range(0, len(data), step):
                parser.feed(data[at : at + step])
            best = min(best, time.process_time() - start)
            kept = [parser._lines._line, *(t.message for t in (parser._main, parser._printed) if t)]
            assert sum(map(len, kept)) < 100_000
        return best

    for step in (12_000, 10):
        assert seconds(400_000, step) < 20 * seconds(50_000, step) + 0.02


@given(st.lists(lines | st.text('T("x1: +-|W', max_size=9), min_size=1), st.integers(0, 40))
def test_every_marker_line_is_found(text: list[str], cut: int) -> None:
    data = ("\n".join(text)[cut:] + "\n").encode()
    found, expected, at = [], [], 0
    while marker := find_marker(data, at):
        found.append(marker.span())
        at = marker.end() + 1
    at = 0
    for line in data.split(b"\n")[:-1]:
        end = at + len(line)
        last = max(at, end - len("Traceback (most recent call last):"))
        if matched := MARKER.match(data, at) or MARKER.match(data, last):
            expected.append(matched.span())
        at = end + 1
    assert found == expected


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "  + Exception Group Traceback (most recent call last):",
        "  | E: g (1 sub-exception)",
        "  | ExceptionGroup: g (12 sub-exceptions)",
        "  +-+---------------- 1 ----------------",
        '  File "x.py", line 3',
        "Exception ignored in: <function A.__del__ at 0x7f>",
        "Exception ignored on threading shutdown:",
        "Exception ignored while closing generator",
        "Exception in thread Thread-1 (f):",
        "Exception in callback f()",
        "Exception in threading.excepthook:",
        "Exception in default exception handler",
        "Unhandled exception in thread started by <function f at 0x7f>",
        "Error in atexit._run_exitfuncs:",
        "Error in sys.excepthook:",
        "Task exception was never retrieved",
        "Process SpawnProcess-1:2:",
        "--- Logging error ---",
        "Fatal Python error: Aborted",
        "SyntaxError: encoding problem: nonsense",
        "SyntaxError: Non-UTF-8 code starting with '\\xff' in file x.py on line 1, but no encoding declared",
        "RecursionError: maximum recursion depth exceeded during compilation",
        "RecursionError: maximum recursion depth exceeded during ast construction",
        "MemoryError",
        "MemoryError: Parser stack overflowed - Python source too complex to parse",
        "SyntaxError: source code string cannot contain null bytes",
        "ValueError: source code cannot contain null bytes",
        "/work/main.py:3: DeprecationWarning: old",
        "Original exception was:",
        "During handling of the above exception, another exception occurred:",
        "The above exception was the direct cause of the following exception:",
    ],
)
def test_each_kind_of_marker_is_found(line: str) -> None:
    marker = find_marker(f"x\n{line}\n".encode(), 0)
    assert marker is not None
    assert marker.span() == (2, 2 + len(line))


@pytest.mark.parametrize(
    "line",
    [b"\n", b"x\n", b"T\n", b"  \n", b"Process \n", b'  File "\n', b"Warning:\n", b"  +-+-\n", b":1: a\n"],
)
def test_short_lines_take_little_time(line: bytes) -> None:
    def seconds(lines: bytes) -> float:
        best = 1e9
        for _ in range(3):
            parser, start = TracebackParser(), time.process_time()
            parser.feed(lines * (2_000_000 // len(lines)))
            best = min(best, time.process_time() - start)
        return best

    assert seconds(line) < 10 * seconds(b"an ordinary line with some words and the number 12345\n")


@pytest.mark.parametrize("digits", [10, 25, 5000])
def test_a_line_number_with_too_many_digits_does_not_count(digits: int) -> None:
    """Clients hold it in 32 or 64 bits, and Python itself converts no more than 4300 digits."""
    frame = f'  File "/work/main.py", line {"1" * digits}, in <module>'
    forged = f"Traceback (most recent call last):\n{frame}\nE: forged\n"
    found = parse_traceback(forged)
    assert found is None or found.error_line is None


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("name", ["new\nline.py", "a\n\n/b.py", "tab\t\r.py"])
def test_a_name_with_control_characters_loses_nothing(name: str, step: int) -> None:
    lines = [
        "before",
        "Traceback (most recent call last):",
        f'  File "/work/{name}", line 3, in <module>',
        "    f()",
        f'  File "/work/{name}", line 2, in f',
        "ValueError: bad",
    ]
    parser, printed = TracebackParser(name), "\n".join(lines).encode()
    for at in range(0, len(printed), step):
        parser.feed(printed[at : at + step])
    assert parser.finish() == Crash(error_type="ValueError", error="bad", error_line=2)


def test_colours_are_ignored() -> None:
    """Python 3.13 prints this with FORCE_COLOR=1."""
    red, bold, purple, title, end = "\x1b[31m", "\x1b[1;31m", "\x1b[35m", "\x1b[1;35m", "\x1b[0m"
    frame = '  File {p}"/work/{file}"{e}, line {p}{line}{e}, in {p}{name}{e}'
    printed = "\n".join(
        [
            "Traceback (most recent call last):",
            frame.format(p=purple, e=end, file="main.py", line=4, name="<module>"),
            f"    {red}f{end}{bold}(){end}",
            f"    {red}~{end}{bold}^^{end}",
            frame.format(p=purple, e=end, file="lib.py", line=2, name="f"),
            f"    return {red}1{end}{bold}/{end}{red}0{end}",
            f"{title}ZeroDivisionError{end}: {purple}division by zero{end}",
            "",
        ]
    )
    assert parse_traceback(printed) == Crash(
        error_type="ZeroDivisionError", error="division by zero", error_line=2
    )
    broken = "\n".join(
        [
            f'  File {purple}"/work/main.py"{end}, line {purple}1{end}',
            f"    x =={bold}={end}",
            f"        {bold}^{end}",
            f"{title}SyntaxError{end}: {purple}invalid syntax{end}",
        ]
    )
    assert parse_traceback(broken) == Crash(error_type="SyntaxError", error="invalid syntax", error_line=1)
