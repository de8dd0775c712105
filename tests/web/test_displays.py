"""Test displays from the outside: what a program shows, in which form, in which order, and within which limits."""

import base64
import json
from typing import Any

import pytest

from tests.support.api import Api

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


async def displays_of(api: Api, code: str, **options: Any) -> list[dict[str, Any]]:
    """Return the displays of a program that must end well and print no error."""
    document = (await api.eval({"code": code, **options})).document
    assert (document["status"], document["exit_code"], document["stderr"]) == ("completed", 0, ""), document
    displays: list[dict[str, Any]] = document["displays"]
    return displays


async def test_display_is_a_builtin_and_can_be_imported(api: Api) -> None:
    code = """
display("text", 42)
from IPython.display import display as shown, HTML, Image, JSON, Markdown, SVG
shown(HTML("<b>bold</b>"), Markdown("*it*"), SVG("<svg/>"), JSON({"a": [1, None]}))
shown(Image(data=b'\\x89PNG', format="png"), metadata={"k": 1})
shown({"text/plain": "raw", "application/x-any": "text"}, raw=True)
"""
    data = [each["data"] for each in await displays_of(api, code)]
    assert data[:2] == [{"text/plain": "'text'"}, {"text/plain": "42"}]
    assert data[2]["text/html"] == "<b>bold</b>"
    assert data[3]["text/markdown"] == "*it*"
    assert data[4]["image/svg+xml"] == "<svg/>"
    assert data[5]["application/json"] == {"a": [1, None]}
    assert base64.b64decode(data[6]["image/png"]) == b"\x89PNG"
    assert data[7] == {"text/plain": "raw", "application/x-any": "text"}


METHODS = f"""
class Rich:
    def __repr__(self): return "rich"
    def _repr_png_(self): return {PNG!r}
    def _repr_jpeg_(self): return b"\\xff\\xd8", {{"width": 3}}
    def _repr_svg_(self): return "<svg/>"
    def _repr_html_(self): return "<p>\\u2028"
    def _repr_markdown_(self): return "# x"
    def _repr_latex_(self): return "$x$"
    def _repr_json_(self): return {{"x": [1, 2]}}
    def _repr_javascript_(self): return "alert(1)"
    def _repr_pdf_(self): return b"%PDF"
    def _repr_mimebundle_(self, include=None, exclude=None): return {{"text/x-own": "own"}}, {{"more": True}}
"""
RICH = {
    "text/plain": "rich",
    "image/png": base64.b64encode(PNG).decode(),
    "image/jpeg": base64.b64encode(b"\xff\xd8").decode(),
    "image/svg+xml": "<svg/>",
    "text/html": "<p>\u2028",
    "text/markdown": "# x",
    "text/latex": "$x$",
    "application/json": {"x": [1, 2]},
    "application/javascript": "alert(1)",
    "application/pdf": base64.b64encode(b"%PDF").decode(),
    "text/x-own": "own",
}


@pytest.mark.parametrize("call", ["display(Rich())", "Rich()"])
async def test_every_method_of_an_object_is_asked(api: Api, call: str) -> None:
    [shown] = await displays_of(api, f"{METHODS}\n{call}", eval_last_expr=call != "display(Rich())")
    assert shown == {"data": RICH, "metadata": {"image/jpeg": {"width": 3}, "more": True}}


@pytest.mark.parametrize("value", ["6 * 7", "None", "'text'", "Rich"])
async def test_a_value_without_a_rich_form_is_no_display(api: Api, value: str) -> None:
    code = f"class Rich:\n    def _repr_html_(self): return 'x'\n{value}"
    assert await displays_of(api, code, eval_last_expr=True) == []


async def test_an_execution_shows_nothing_unless_asked(api: Api) -> None:
    source = "try:\n    display(1)\nexcept NameError:\n    print('none')\n"
    result = await api.run(source)
    assert (result["stdout"], "displays" in result) == ("none\n", False)
    result = await api.run(source, capture_displays=True)
    assert (result["stdout"], result["displays"]) == ("", [{"data": {"text/plain": "1"}, "metadata": {}}])


BAD_METHODS = """
class Bad:
    def __repr__(self): return "bad"
    def _repr_html_(self): return "<p>"
    def _repr_png_(self):
        %s
display(Bad())
print("after")
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no picture')", "ValueError: no picture"),
        ("return 5", "_repr_png_ returned a value of the type int; it is not shown"),
        ("raise NotImplementedError", ""),
        ("return None", ""),
    ],
)
async def test_a_failing_method_keeps_the_other_forms(api: Api, body: str, words: str) -> None:
    document = (await api.eval({"code": BAD_METHODS % body})).document
    assert document["displays"] == [{"data": {"text/plain": "bad", "text/html": "<p>"}, "metadata": {}}]
    assert (document["exit_code"], document["stdout"]) == (0, "after\n")
    assert words in document["stderr"]
    assert "pyexec" not in document["stderr"]
    assert bool(words) is bool(document["stderr"])


BAD_BUNDLES = """
class Names(dict):
    def items(self): raise KeyError("no items")
class Bad:
    def __init__(self, bundle): self.bundle = bundle
    def __repr__(self): return "bad"
    def _repr_mimebundle_(self, include=None, exclude=None): return self.bundle
for bundle in (["text/html"], ({"text/html": "<p>"}, {}, {}), Names(), {1: "x", None: "y"}, None):
    display(Bad(bundle))
try:
    display("text", raw=True)
except TypeError as error:
    print(error)
"""


async def test_a_malformed_bundle_is_dropped_with_a_note(api: Api) -> None:
    document = (await api.eval({"code": BAD_BUNDLES})).document
    assert document["displays"] == [{"data": {"text/plain": "bad"}, "metadata": {}}] * 5
    assert (document["exit_code"], document["stdout"]) == (
        0,
        "a MIME bundle must be a dictionary, not a value of the type str\n",
    )
    assert [line for line in document["stderr"].splitlines() if "rror:" in line or "_repr" in line] == [
        "_repr_mimebundle_ returned a value of the type list; it is not shown",
        "_repr_mimebundle_ returned a value of the type tuple; it is not shown",
        "KeyError: 'no items'",
        "TypeError: a MIME type must be a string, not a value of the type int",
        "TypeError: a MIME type must be a string, not a value of the type NoneType",
    ]


async def test_a_method_may_print_and_may_return_base64(api: Api) -> None:
    document = (await api.eval({"code": BAD_METHODS % "print('printed'); return 'aGk='"})).document
    assert document["stdout"] == "printed\nafter\n"
    assert document["displays"][0]["data"]["image/png"] == "aGk="
    document = (await api.eval({"code": BAD_METHODS % "return 'no base64!'"})).document
    assert document["displays"] == [{"data": {"text/plain": "bad", "text/html": "<p>"}, "metadata": {}}]
    assert document["truncated"]["displays"] is True


UNUSUAL_JSON = """import datetime
class Table:
    __repr__, _repr_json_ = lambda self: "table", lambda self: %s
display(Table())
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{'x': float('nan'), 'y': [float('inf'), 1.5]}", {"x": "nan", "y": ["inf", 1.5]}),
        ("{(1, 2): 'a', None: {3: True}}", {"(1, 2)": "a", "None": {"3": True}}),
        ("[{1}, b'hi', datetime.date(2026, 1, 2), range(2)]", [[1], "aGk=", "2026-01-02", [0, 1]]),
    ],
)
async def test_json_that_is_no_json_is_cleaned_as_in_jupyter(api: Api, value: str, expected: Any) -> None:
    document = (await api.eval({"code": UNUSUAL_JSON % value})).document
    assert document["displays"][0]["data"]["application/json"] == expected
    assert ("displays" in document["truncated"], document["stderr"]) == (False, "")


@pytest.mark.parametrize(
    "value", ["[object()]", "{(1,): 0, '(1,)': 1}", "(lambda d: [d.append(d), d][1])([])"]
)
async def test_a_form_that_json_cannot_express_is_dropped_with_a_note(api: Api, value: str) -> None:
    document = (await api.eval({"code": UNUSUAL_JSON % value})).document
    assert document["displays"] == [{"data": {"text/plain": "table"}, "metadata": {}}]
    assert (document["truncated"]["displays"], document["exit_code"]) == (True, 0)
    assert "Error" in document["stderr"]


async def test_a_method_that_never_returns_meets_the_timeout(api: Api) -> None:
    body = {"code": f"display(1)\n{BAD_METHODS % 'while True: pass'}", "config": {"timeout_seconds": 1}}
    document = (await api.eval(body)).document
    assert (document["error_type"], document["displays"]) == (
        "timeout",
        [{"data": {"text/plain": "1"}, "metadata": {}}],
    )


async def test_a_display_that_is_too_large_is_dropped(api: Api) -> None:
    code = """
from IPython.display import Image, display
display(1)
display(Image(data=bytes(100 * 2**20), format='png'))
display(2)
"""
    document = (await api.eval({"code": code})).document
    assert [each["data"] for each in document["displays"]] == [{"text/plain": "1"}, {"text/plain": "2"}]
    assert document["truncated"] == {"stdout": False, "stderr": False, "displays": True}
    assert (document["exit_code"], document["stderr"]) == (0, "")


async def test_ten_thousand_displays_do_not_hurt(api: Api) -> None:
    document = (await api.eval({"code": "for n in range(10_000): display(n)"})).document
    assert [each["data"]["text/plain"] for each in document["displays"]] == [str(n) for n in range(1000)]
    assert document["truncated"]["displays"] is True
    assert document["timings_ms"]["run"] < 5000


async def test_names_that_are_no_mime_types_are_dropped(api: Api) -> None:
    names = ["text", "", "a/b/c", "text/html; x=1", "../x", "text/\n", "text/ü", "/", "a b/c"]
    code = f"display({ {**dict.fromkeys(names, 'x'), 'text/plain': 'kept'} }, raw=True)"
    document = (await api.eval({"code": code})).document
    assert [each["data"] for each in document["displays"]] == [{"text/plain": "kept"}]
    assert document["truncated"]["displays"] is True


async def test_only_the_main_process_shows(api: Api) -> None:
    """Messages of child processes change nothing. Their displays are printed."""
    code = """
import os, subprocess, sys, threading
display('main')
if not os.fork():
    for number in range(3, 99):
        try: os.write(number, b'd' * 99)
        except OSError: pass
    display('child')
    os._exit(0)
os.wait()
thread = threading.Thread(target=display, args=('thread',))
thread.start(); thread.join()
subprocess.run([sys.executable, '-c', 'import IPython'], stderr=subprocess.DEVNULL)
display('end')
"""
    document = (await api.eval({"code": code})).document
    shown = [each["data"]["text/plain"] for each in document["displays"]]
    assert (shown, document["stdout"]) == (["'main'", "'thread'", "'end'"], "child\n")


async def test_an_empty_message_of_a_child_process_loses_nothing(api: Api) -> None:
    code = """
import os, sys
if os.fork() == 0:
    for fd in range(3, 10):
        try:
            os.write(fd, b"")
        except OSError:
            pass
    os._exit(0)
os.wait()
display(1)
"kept"
"""
    result = (await api.eval({"code": code, "eval_last_expr": True})).document
    assert result["result"] == "'kept'"
    assert [each["data"] for each in result["displays"]] == [{"text/plain": "1"}]


async def test_a_program_that_closes_all_descriptors_only_loses_its_displays(api: Api) -> None:
    code = """
import os
os.closerange(3, 99)
files = [open(f'/tmp/{n}', 'wb') for n in range(9)]
display(1)
print([os.path.getsize(f'/tmp/{n}') for n in range(9)])
"""
    document = (await api.eval({"code": code})).document
    assert (document["displays"], document["exit_code"]) == ([], 0)
    assert "[0, 0, 0, 0, 0, 0, 0, 0, 0]" in document["stdout"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os\nos.closerange(3, 99)\n1 / 0", ("ZeroDivisionError", "division by zero", 3)),
        ("import atexit, os\natexit.register(os._exit, 1)\n1 / 0", ("ZeroDivisionError", "division by zero", 3)),
        ("import sys, traceback\ntry: 1 / 0\nexcept: traceback.print_exc()\nsys.exit(1)", (None, None, None)),
    ],
)  # fmt: skip
async def test_an_exception_whose_report_is_lost_is_read_from_stderr(
    api: Api, code: str, error: tuple[str | None, str | None, int | None]
) -> None:
    """A program that reports that it has no exception has none, whatever it prints."""
    document = (await api.eval({"code": code})).document
    assert document["exit_code"] == 1
    assert tuple(document.get(name) for name in ("error_type", "error", "error_line")) == error
    assert "traceback" not in document


async def test_displays_are_events_between_the_output(api: Api) -> None:
    code = """
import time
print('before', flush=True); time.sleep(0.2)
display({'text/html': '<script>' + 'x' * 200_000}, raw=True); time.sleep(0.2)
print('after')
"""
    headers = {"Accept": "text/event-stream"}
    async with api.session.post("/api/v1/eval", json={"code": code}, headers=headers) as answer:
        events = parse_events(await answer.text())
    names = [name for name, _, _ in events]
    assert names == ["submitted", "claimed", "running", "output", "display", "output", "finished"]
    document = json.loads(events[4][2])
    assert document == {"data": {"text/html": "<script>" + "x" * 200_000}, "metadata": {}}
    result = json.loads(events[-1][2])
    assert result["displays"] == [document]
    path = f"/api/v1/executions/{result['execution_id']}"
    async with api.session.get(f"{path}/events", headers={"Last-Event-ID": events[3][1]}) as answer:
        assert parse_events(await answer.text())[0] == events[4]
    async with api.session.get(path) as answer:
        assert (await answer.json())["displays"] == [document]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.content_type == "application/json"
    async with api.session.get(f"{path}/logs") as answer:
        assert await answer.text() == "before\nafter\n"


def parse_events(text: str) -> list[tuple[str, str, str]]:
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if fields:
            events.append((fields["event"], fields["id"], fields["data"]))
    return events
