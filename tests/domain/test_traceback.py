"""Test the traceback parser with tracebacks that the interpreter has printed."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyexec.domain.crash import Crash
from pyexec.domain.traceback import parse_traceback


@pytest.fixture
def crash(tmp_path: Path):
    """Return a function that runs a script with a helper module, and parses its standard error."""

    def run(source: str, helper: str = "") -> Crash | None:
        (tmp_path / "main.py").write_text(source)
        (tmp_path / "helper.py").write_text(helper)
        command = [sys.executable, "-BES", str(tmp_path / "main.py")]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return parse_traceback(ran.stderr, root=f"{tmp_path}/")

    return run


def test_an_uncaught_exception(crash) -> None:
    assert crash("x = 1\nraise ValueError('bad')\n") == Crash(
        error_type="ValueError", error="bad", error_line=2
    )


def test_an_exception_without_a_message_is_named(crash) -> None:
    assert crash("raise KeyboardInterrupt") == Crash(
        error_type="KeyboardInterrupt", error="KeyboardInterrupt", error_line=1
    )


def test_the_line_is_the_innermost_line_of_the_users_files(crash) -> None:
    found = crash("import helper\n\n\nhelper.go()\n", "import json\n\ndef go():\n    json.loads('{')\n")
    assert found.error_type == "JSONDecodeError"
    assert found.error_line == 4
    assert found.error.startswith("Expecting property name")


def test_recursion_repeats_a_line(crash) -> None:
    found = crash("def f():\n    f()\nf()\n")
    assert (found.error_type, found.error_line) == ("RecursionError", 2)


@pytest.mark.parametrize("link", ["from error", "", "from None"])
def test_of_a_chain_the_last_exception_counts(crash, link: str) -> None:
    found = crash(f"try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise OSError('later') {link}\n")
    assert found == Crash(error_type="OSError", error="later", error_line=4)


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("x = 1\nx ===\n", "SyntaxError", 2),
        ("if 1:\nx\n", "IndentationError", 2),
        ("if 1:\n    x\n\ty\n", "TabError", 3),
        ("import helper", "SyntaxError", 1),
    ],
)
def test_a_syntax_error(crash, source: str, kind: str, line: int) -> None:
    found = crash(source, "def f(:\n")
    assert (found.error_type, found.error_line) == (kind, line)


def test_a_syntax_error_in_evaluated_text_counts_where_it_was_evaluated(crash) -> None:
    found = crash("x = 1\neval('1 +')\n")
    assert (found.error_type, found.error_line) == ("SyntaxError", 2)


@pytest.mark.parametrize(
    ("source", "kind"),
    [("x = " + "-" * 5000 + "1", "RecursionError"), ("x = " + "lambda: " * 7000 + "1", "MemoryError")],
)
def test_a_script_that_is_nested_too_deeply_has_an_error_without_a_traceback(
    crash, source: str, kind: str
) -> None:
    found = crash(source)
    assert (found.error_type, found.error_line) == (kind, None)
    assert (
        crash(f"import sys\nprint('x', file=sys.stderr)\nprint('{kind}', file=sys.stderr)\nsys.exit(1)")
        is None
    )


@pytest.mark.parametrize("error", ["OSError('no')", "ExceptionGroup('no', [OSError('no')])"])
def test_frames_that_a_program_prints_without_an_exception_are_ignored(crash, error: str) -> None:
    frames = 'Traceback (most recent call last):\\n  File "%s", line 9, in <module>'
    found = crash(f"import sys\nprint('{frames}' % __file__, file=sys.stderr)\nraise {error}")
    assert (found.error_type, found.error_line) == (error.partition("(")[0], 3)


def test_code_without_lines_is_not_the_line_of_the_error(crash) -> None:
    source = (
        "code = compile('1/0', __file__, 'exec')\nexec(code.replace(co_linetable=b'', co_firstlineno=1))\n"
    )
    assert crash(source).error_line == 2
    assert crash("import helper", "# coding: nonsense").error_line == 1


def test_an_exception_group_is_the_crash_and_not_its_members(crash) -> None:
    source = """
def fail(error):
    try:
        raise error
    except Exception as caught:
        return caught

inner = ExceptionGroup("in", [fail(OSError("two"))])
raise ExceptionGroup("two went wrong", [fail(ValueError("one")), inner])
"""
    assert crash(source) == Crash(
        error_type="ExceptionGroup", error="two went wrong (2 sub-exceptions)", error_line=9
    )


def test_an_exception_group_without_frames_in_its_members(crash) -> None:
    found = crash("raise BaseExceptionGroup('a\\nb', [KeyboardInterrupt(), ValueError(1)])")
    assert found.error_type == "BaseExceptionGroup"
    assert found.error == "a\nb (2 sub-exceptions)"


def test_a_group_without_frames_has_no_heading(crash) -> None:
    """A group that `except*` raises at the top of a script."""
    source = """
try:
    raise ExceptionGroup("g", [ValueError("a"), KeyError("b")])
except* KeyError:
    raise TypeError("c")
"""
    assert crash(source) == Crash(error_type="ExceptionGroup", error="(2 sub-exceptions)", error_line=None)
    thread = f"import threading\nthreading.Thread(target=exec, args=({source!r},)).start()\n"
    assert crash(thread) is None


def test_a_group_after_another_exception_and_the_other_way_round(crash) -> None:
    group = "ExceptionGroup('g', [ValueError(1)])"
    source = "try:\n    raise {}\nexcept BaseException:\n    raise {}\n"
    found = crash(source.format("OSError()", group))
    assert (found.error_type, found.error_line) == ("ExceptionGroup", 4)
    found = crash(source.format(group, "OSError('x')"))
    assert found == Crash(error_type="OSError", error="x", error_line=4)


@pytest.mark.parametrize("message", ["a\nb", "a\n\n  b: c\nValueError: no", "\nlate", "a\nFoo.bar"])
def test_a_message_of_several_lines_is_whole(crash, message: str) -> None:
    found = crash(f"raise ValueError({message!r})")
    assert found == Crash(error_type="ValueError", error=message.strip(), error_line=1)


def test_notes_belong_to_the_message(crash) -> None:
    assert crash("e = ValueError('a')\ne.add_note('and b')\nraise e").error == "a\nand b"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import json; raise json.JSONDecodeError('m', 'd', 0)", "JSONDecodeError"),
        ("import helper; raise helper.Outer.Inner('m')", "Inner"),
        ("def f():\n    class Local(Exception): pass\n    raise Local('m')\nf()", "Local"),
        ("class Ärger(Exception): pass\nraise Ärger('m')", "Ärger"),
    ],
)
def test_a_name_is_without_its_module_or_scope(crash, source: str, name: str) -> None:
    found = crash(source, "class Outer:\n    class Inner(Exception): pass\n")
    assert found.error_type == name
    assert found.error.startswith("m")


FAKE = 'Traceback (most recent call last):\\n  File \\"/x.py\\", line 7, in f\\nFakeError: no'


def test_a_class_may_have_any_name(crash) -> None:
    found = crash("raise type('A-B c', (Exception,), {})('bad: worse')\n")
    assert found == Crash(error_type="A-B c", error="bad: worse", error_line=1)


def test_a_script_may_have_a_quote_in_its_name(tmp_path: Path) -> None:
    script = tmp_path / 'we"ird.py'
    script.write_text("x = 1\nraise ValueError('bad')\n")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    found = parse_traceback(ran.stderr, script=script.name, root=f"{tmp_path}/")
    assert found == Crash(error_type="ValueError", error="bad", error_line=2)


def test_a_printed_traceback_before_the_real_one_does_not_count(crash) -> None:
    found = crash(f'import sys\nprint("{FAKE}\\nand on", file=sys.stderr)\nraise ValueError("real")')
    assert found == Crash(error_type="ValueError", error="real", error_line=3)


@pytest.mark.parametrize(
    "printed",
    [
        "Traceback (most recent call last):\\nall is well",
        "Traceback (most recent call last):\\n\\nall\\nis: well",
        'Traceback (most recent call last):\\n  File \\"/x.py\\", line 7, in f\\n3 things are fine',
        'Traceback (most recent call last):\\n  File \\"/x.py\\", line 7, in f',
        '  File \\"/x.py\\", line 7\\nall: well',
        "ValueError: no",
        "",
    ],
)
def test_text_that_only_looks_like_a_traceback_is_no_crash(crash, printed: str) -> None:
    assert crash(f'import sys\nprint("{printed}", file=sys.stderr)\nsys.exit(1)') is None


@pytest.mark.parametrize("printed", ["'50%'", "'loading ... '", "'\\r5|## |' * 20_000", "'50%\\n\\x1b[A7'"])
@pytest.mark.parametrize("error", ["ValueError('bad')", "ExceptionGroup('bad', [ValueError(1)])"])
def test_a_traceback_may_follow_an_unfinished_line(crash, printed: str, error: str) -> None:
    found = crash(f"import sys\nsys.stderr.write({printed})\nraise {error}\n")
    assert (found.error_type, found.error[:3], found.error_line) == (error.split("(")[0], "bad", 3)


def test_of_two_tracebacks_behind_text_the_last_one_counts_if_the_first_is_a_childs(crash) -> None:
    child = "subprocess.run([sys.executable, '-c', 'import sys; sys.stderr.write(\"1%\"); {}[0]'])"
    found = crash(f"import subprocess, sys\n{child}\nsys.stderr.write('2%')\n1 / 0\n")
    assert found == Crash(error_type="ZeroDivisionError", error="division by zero", error_line=4)


def test_a_heading_behind_text_in_a_message_is_part_of_it(crash) -> None:
    message = 'a\nb: Traceback (most recent call last):\n  File "main.py", line 1, in <module>\nKeyError: 1'
    found = crash(f"raise ValueError({message!r})\n")
    assert found == Crash(error_type="ValueError", error=message, error_line=1)


def test_a_printed_traceback_at_the_end_counts_with_all_text_after_it(crash) -> None:
    source = "import sys, traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc()\n"
    source += "sys.exit('bye')\n"
    assert crash(source) == Crash(error_type="ZeroDivisionError", error="division by zero\nbye", error_line=3)


def test_a_program_that_exits_by_itself_has_not_crashed(crash) -> None:
    assert crash("import sys; sys.exit('a message')") is None


def test_warnings_are_no_crash(crash) -> None:
    assert crash("import warnings; warnings.warn('careful')") is None


MAIN = "raise ValueError('main')"
ELSEWHERE = {
    "a finalizer": f"class A:\n    def __del__(self):\n        raise KeyError('late')\na = A()\n{MAIN}",
    "a generator": (
        "def g():\n    try:\n        yield\n    finally:\n        raise KeyError('late')\n"
        f"x = g()\nnext(x)\n{MAIN}"
    ),
    "a thread": f"import threading\nthreading.Timer(0.2, lambda: {{}}['late']).start()\n{MAIN}",
    "an exit function": f"import atexit\natexit.register(lambda: {{}}['late'])\n{MAIN}",
    "a hook": f"import sys\ndef hook(*_):\n    {{}}['late']\nsys.excepthook = hook\n{MAIN}",
    "a log record": f"import logging\nlogging.warning('%d', 'late')\n{MAIN}",
    "a chain in a thread": (
        "import threading\ndef f():\n    try:\n        1 / 0\n    except ZeroDivisionError:\n        {}['late']\n"
        f"threading.Timer(0.2, f).start()\n{MAIN}"
    ),
    "a group in a thread": (
        "import threading\ndef f():\n    raise ExceptionGroup('late', [KeyError('late')])\n"
        f"threading.Timer(0.2, f).start()\n{MAIN}"
    ),
    "an unclosed file": f"import warnings\nwarnings.simplefilter('always')\nopen(__file__)\nx = open(__file__)\n{MAIN}",
    "a child": (
        "import multiprocessing\ndef f():\n    {}['late']\n"
        f"p = multiprocessing.get_context('fork').Process(target=f)\np.start()\np.join()\n{MAIN}"
    ),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_exceptions_that_did_not_end_the_program_are_ignored(crash, where: str) -> None:
    source = ELSEWHERE[where]
    assert crash(source) == Crash(error_type="ValueError", error="main", error_line=source.count("\n") + 1)


@pytest.mark.parametrize(
    "where", [where for where in ELSEWHERE if where not in ("a hook", "an unclosed file")]
)
def test_exceptions_elsewhere_are_no_crash_if_the_program_exits(crash, where: str) -> None:
    assert crash(ELSEWHERE[where].replace(MAIN, "import sys; sys.exit(1)")) is None


CHILD = "r = subprocess.run([sys.executable, '-c', {!r}], stderr=-1, text=True)\nraise OSError(r.stderr)\n"


@pytest.mark.parametrize(
    "child",
    [
        "{}['x']",
        "def f(): {}['x']\ntry: 1 / 0\nexcept ZeroDivisionError: f()",
        "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
        "x ===",
    ],
)
def test_a_childs_traceback_in_the_message_is_part_of_it(crash, child: str) -> None:
    found = crash("import subprocess, sys\n" + CHILD.format(child))
    assert (found.error_type, found.error_line) == ("OSError", 3)
    ran = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert found.error == ran.stderr.strip()


def test_the_result_of_another_process_is_raised_in_the_main_one(crash) -> None:
    source = "import concurrent.futures as c\ndef f(): 1 / 0\nwith c.ProcessPoolExecutor(1) as p:\n"
    found = crash(source + "    p.submit(f).result()\n")
    assert (found.error_type, found.error, found.error_line) == ("ZeroDivisionError", "division by zero", 4)


@pytest.mark.parametrize("size", [3_999, 4_000, 4_001, 200_000, 2_000_000])
@pytest.mark.parametrize("text", ["'x'", "'€'", "'ab\\n'"])
def test_a_long_message_is_cut(crash, size: int, text: str) -> None:
    found = crash(f"raise ValueError('>' + ({text} * {size})[:{size} - 2] + '<')")
    assert (found.error_type, found.error_line, len(found.error)) == ("ValueError", 1, min(size, 4_000))
    assert found.error.startswith(">")
    assert found.error.endswith("<" if size <= 4_000 else "…")


def test_a_traceback_with_omitted_frames_has_its_innermost_line(crash) -> None:
    source = "import sys\nsys.setrecursionlimit(4000)\ndef f(n):\n    g(n)\n"
    source += "def g(n):\n    f(n - 1) if n else 1 / 0\nf(900)"
    assert crash(source) == Crash(error_type="ZeroDivisionError", error="division by zero", error_line=6)


@pytest.mark.parametrize("source", ["raise SystemExit('bye')", "raise SystemExit(1)"])
def test_an_exit_is_no_crash(crash, source: str) -> None:
    assert crash(source) is None
    assert crash(f"try:\n    1 / 0\nexcept ZeroDivisionError:\n    {source}") is None
