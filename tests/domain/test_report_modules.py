"""Test the code that reports from the program's process, in real interpreters without a sandbox."""

import ast
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

from pyexec.domain.crash import Crash
from pyexec.domain.displays import Display, decode_display
from pyexec.guest.interpreter import EVALUATE
from pyexec.guest.reports import channel
from pyexec.guest.supervisor import report_code
from pyexec.sandbox.guest_source import report_modules
from pyexec.sandbox.reports import ReportReader

SECRET = b"s" * channel.SECRET_BYTES
CUSTOMIZE = """
import marshal, os, sys
CHANNEL = int(os.environ.pop("CHANNEL"))
os.set_inheritable(CHANNEL, False)
message = os.read(CHANNEL, 192 * 1024)
name = "pyexec.guest.reports.channel"
module = sys.modules[name] = type(sys)(name)
exec(marshal.loads(marshal.loads(message[24:])["channel"]), module.__dict__)
module.start(CHANNEL, message)
"""
"""Starts a program as startup.py does in a sandbox."""


@frozen
class Reported:
    """The output and the reports of a program."""

    displays: list[Display]
    truncated: bool
    crash: Crash | None
    end_reported: bool
    result: str | None
    stdout: str
    stderr: str
    code: int


def run(tmp_path: Path, source: str, *, evaluate: bool = False, display_bytes: int = 100_000) -> Reported:
    """Run a script that reports."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CUSTOMIZE)
    script = tmp_path / "main.py"
    script.write_text(source)
    code = report_code(report_modules())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            ours.send(SECRET + display_bytes.to_bytes(channel.NUMBER_BYTES, "big") + code)
            process = subprocess.Popen(
                [sys.executable, *(["-c", EVALUATE] if evaluate else []), str(script)],
                env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "CHANNEL": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
            )
        reader = ReportReader(display_bytes)
        displays = []
        while message := ours.recv(64 * 1024):
            assert message.startswith(SECRET)
            displays += [decode_display(each) for each in reader.feed(message[len(SECRET) :]) if each]
        stdout, stderr = process.communicate(timeout=30)
    reader.finish(cut=False)
    return Reported(
        displays,
        reader.displays_truncated,
        reader.crash,
        reader.end_reported,
        reader.result,
        stdout,
        stderr,
        process.returncode,
    )


def test_the_interpreter_finds_the_code_after_the_secret_and_the_number() -> None:
    startup = ast.parse(Path(channel.__file__).parent.with_name("startup.py").read_text())
    constants = {
        node.targets[0].id: node.value.value
        for node in startup.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    assert constants["LIMITS_END"] == channel.SECRET_BYTES + channel.NUMBER_BYTES


def test_records_of_threads_and_of_signal_handlers_do_not_mix(tmp_path: Path) -> None:
    source = """
import signal, threading
def show(name):
    for n in range(40): display({"text/plain": name * 10_000}, raw=True)
signal.signal(signal.SIGALRM, lambda *_: display({"text/plain": "alarm" * 20_000}, raw=True))
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.005)
threads = [threading.Thread(target=show, args=(name,)) for name in "abc"]
for thread in threads: thread.start()
show("d")
for thread in threads: thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    reported = run(tmp_path, source, display_bytes=50_000_000)
    assert (reported.code, reported.stderr) == (0, "")
    texts = [each.data["text/plain"] for each in reported.displays]
    for name in "abcd":
        assert texts.count(name * 10_000) == 40
    assert set(texts) <= {*(name * 10_000 for name in "abcd"), "alarm" * 20_000}


@pytest.mark.parametrize("evaluate", [False, True])
def test_an_exception_is_reported_with_its_causes_and_frames(tmp_path: Path, evaluate: bool) -> None:
    source = """
def f(n):
    return n / 0
try:
    f(1)
except ZeroDivisionError as error:
    raise ValueError("two\\nlines") from error
"""
    reported = run(tmp_path, source, evaluate=evaluate)
    assert reported.crash is not None
    assert (reported.crash.error_type, reported.crash.error) == ("ValueError", "two\nlines")
    first, second = reported.crash.traceback or ()
    path = str(tmp_path / "main.py")
    assert (first.type, first.message, first.relation) == ("ZeroDivisionError", "division by zero", None)
    assert [(f.file, f.line, f.function, f.code) for f in first.frames] == [
        (path, 5, "<module>", "f(1)"),
        (path, 3, "f", "return n / 0"),
    ]
    assert (second.relation, [f.line for f in second.frames]) == ("cause", [7])
    assert "pyexec" not in reported.stderr


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("x = (", "SyntaxError", "'(' was never closed"),
        ("import json\ntry:\n  json.loads('{')\nexcept ValueError:\n  {}['k']", "KeyError", "'k'"),
        ("class E(Exception):\n  def __str__(self): 1/0\nraise E", "E", "<exception str() failed>"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("import atexit\natexit.register(print, 'bye')\nraise OSError('x' * 5000)", "OSError", "x" * 3999 + "…"),
        ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded"),
        ("import sys\nsys.excepthook = lambda *_: print('own')\nraise ValueError(1)", "ValueError", "1"),
    ],
)  # fmt: skip
def test_every_exception_is_reported(tmp_path: Path, source: str, kind: str, message: str) -> None:
    reported = run(tmp_path, source)
    assert reported.crash is not None
    assert reported.crash.error_type == kind
    assert reported.crash.error.startswith(message)
    assert sum(len(entry.frames) for entry in reported.crash.traceback or ()) <= 60


@pytest.mark.parametrize(
    "source",
    [
        "print('Traceback (most recent call last):\\nValueError: forged', file=__import__('sys').stderr)\nexit(1)",
        "import sys\nsys.exit('message')",
        "import threading\nthread = threading.Thread(target=lambda: 1/0)\nthread.start(); thread.join(); exit(1)",
        "import atexit\natexit.register(lambda: 1/0)\nexit(1)",
        "import sys, code\nsys.last_value = ValueError('forged')\nexit(1)",
    ],
)
def test_what_did_not_end_the_main_thread_is_not_reported(tmp_path: Path, source: str) -> None:
    reported = run(tmp_path, source)
    assert (reported.crash, reported.end_reported, reported.code) == (None, True, 1)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.closerange(3, 4096)\n1 / 0",
        "import atexit, os\natexit.register(os._exit, 1)\n1 / 0",
        "import os, sys\nsys.excepthook = lambda *error: (sys.__excepthook__(*error), os._exit(1))\n1 / 0",
        "import os\nos._exit(1)",
    ],
)
def test_a_lost_report_differs_from_one_of_no_exception(tmp_path: Path, source: str) -> None:
    reported = run(tmp_path, source)
    assert (reported.crash, reported.end_reported, reported.code) == (None, False, 1)


def test_names_of_types_become_lower_case(tmp_path: Path) -> None:
    source = """
data = {"Image/PNG": b"", "Application/JSON": "[1]", "Text/HTML": "first", "text/html": "second"}
display(data, raw=True, metadata={"Image/PNG": {"width": 9}, "Own": 1, 2: 3})
"""
    reported = run(tmp_path, source)
    assert (reported.stderr, reported.truncated) == ("", True)
    data = {"image/png": "", "application/json": "[1]", "text/html": "first"}
    assert reported.displays == [Display(data, {"image/png": {"width": 9}, "Own": 1, "2": 3})]


def test_modules_of_the_caller_are_not_loaded_by_mistake(tmp_path: Path) -> None:
    for name in ("json", "traceback", "io", "linecache", "binascii", "base64", "weakref", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('loaded a file of the caller')")
    source = "class R:\n  def _repr_html_(self): return '<p>'\ndisplay(R())\nR()"
    reported = run(tmp_path, source, evaluate=True)
    assert (reported.code, reported.stderr) == (0, "")
    assert [each.data["text/html"] for each in reported.displays] == ["<p>", "<p>"]
    assert reported.result is not None
    shutil.rmtree(tmp_path / "site")
    reported = run(tmp_path, "def f():\n  raise ValueError('v')\nf()", evaluate=True)
    assert reported.crash is not None
    assert (reported.crash.error_type, reported.crash.error) == ("ValueError", "v")


def test_the_parts_of_a_provided_ipython_are_its_attributes(tmp_path: Path) -> None:
    source = """
import IPython
IPython.display.display(IPython.core.display.HTML("<p>"))
print(hasattr(IPython, "unknown"), hasattr(IPython, "__path"))
"""
    reported = run(tmp_path, source)
    assert (reported.stdout, reported.stderr) == ("False False\n", "")
    assert [each.data["text/html"] for each in reported.displays] == ["<p>"]


def test_ipython_is_provided_only_if_it_is_missing(tmp_path: Path) -> None:
    package = tmp_path / "IPython" / "core"
    package.mkdir(parents=True)
    (tmp_path / "IPython" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "display_functions.py").write_text("def display(*objects): print('printed')\n")
    (tmp_path / "IPython" / "display.py").write_text("from IPython.core.display_functions import *\n")
    source = """
from IPython.display import display
display(1)
try:
    import IPython.core.display
except ModuleNotFoundError:
    print("missing")
print(IPython.__file__ is not None, IPython.display.__loader__.__class__.__name__)
"""
    reported = run(tmp_path, source.replace("print(IPython", "import IPython\nprint(IPython"))
    assert reported.stdout == "missing\nTrue SourceFileLoader\n"
    assert [each.data for each in reported.displays] == [{"text/plain": "1"}]
