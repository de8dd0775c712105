"""Test /api/v1/eval: Python versions, error lines in the user's own files, and the last expression."""

import pytest

from tests.support.api import Api
from tests.support.cases import sampled

FILES = {
    "main.py": "import pkg.deep\npkg.deep.go(1)\n",
    "pkg/__init__.py": "",
    "pkg/deep.py": "\n\ndef go(n):\n    return 1 // (n - 1)\n",
    "broken.py": "x = 1\ny = (\n",
    "uses_broken.py": "import os\nimport broken\n",
}

CRASHES = [
    ("x = 1\n\n1 / 0", "ZeroDivisionError", 3, "division by zero"),
    ("x = 1\nprint('a'\n", "SyntaxError", 2, "never closed"),
    ("if True:\nx = 1", "IndentationError", 2, "indented block"),
    ("def f():\n    raise KeyError('k')\n\nf()", "KeyError", 2, "'k'"),
    ("import json\n\njson.loads('{')", "JSONDecodeError", 3, "Expecting property name"),
    (
        "import json\ndef f(pairs):\n    raise OSError('mine')\njson.loads('{}', object_hook=f)",
        "OSError",
        3,
        "mine",
    ),
    (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('v') from e",
        "ValueError",
        4,
        "v",
    ),
    ("try:\n    1 / 0\nfinally:\n    raise ValueError('w')", "ValueError", 4, "w"),
    (
        "\nraise ExceptionGroup('group', [ValueError(1), KeyError(2)])",
        "ExceptionGroup",
        2,
        "group (2 sub-exceptions)",
    ),
    ("class Own(Exception):\n    pass\nraise Own('mine')", "Own", 3, "mine"),
    ("def f():\n    f()\nf()", "RecursionError", 2, "maximum recursion depth"),
    ("x = 1\nundefined_name", "NameError", 2, "undefined_name"),
]


@pytest.mark.parametrize("eval_last_expr", [False, True])
@pytest.mark.parametrize("form", ["code", "files"])
@sampled(("code", "kind", "line", "words"), CRASHES)
async def test_an_exception_is_reported_with_its_type_and_line(
    api: Api, code: str, kind: str, line: int, words: str, form: str, eval_last_expr: bool
) -> None:
    bodies = {
        "code": {"code": code},
        "files": {"files": [{"name": "a/b.py", "content": code}]},
        "entrypoint": {"files": [{"name": "a/b", "content": code}], "entrypoint": "a/./b"},
    }
    body = bodies[form]
    result = (await api.eval({**body, "eval_last_expr": eval_last_expr})).document
    assert (result["status"], result["exit_code"]) == ("completed", 1)
    assert (result["error_type"], result["error_line"]) == (kind, line)
    assert words in result["error"]
    assert "evaluator" not in result["stderr"]
    assert "<string>" not in result["stderr"]
    assert "result" not in result


@pytest.mark.parametrize("capture_displays", [False, True])
async def test_a_group_that_except_star_raises_is_reported(api: Api, capture_displays: bool) -> None:
    """Such a group has no frame of its own, and the interpreter prints it without a heading."""
    code = "try:\n    raise ExceptionGroup('g', [OSError(1), KeyError(2)])\nexcept* KeyError:\n    raise ValueError"
    result = (await api.eval({"code": code, "capture_displays": capture_displays})).document
    assert (result["exit_code"], result["error_type"]) == (1, "ExceptionGroup")
    assert result["error"].strip() == "(2 sub-exceptions)"
    assert "error_line" not in result


@pytest.mark.parametrize("options", [{"capture_displays": False}, {}, {"eval_last_expr": True}])
async def test_code_that_cannot_be_compiled_is_reported_with_its_type(
    api: Api, options: dict[str, bool]
) -> None:
    for code, kind in (("-" * 5000 + "1", "RecursionError"), ("lambda: " * 7000 + "1", "MemoryError")):
        result = (await api.eval({"code": code, **options})).document
        assert (result["exit_code"], result["error_type"]) == (1, kind)
        assert "error_line" not in result


ODD_EXCEPTIONS = [
    ("class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E", "E", 4),
    ("class E(Exception):\n    __class__ = property(lambda self: 1 / 0)\nraise E", "E", 3),
    ("import sys\nsys.modules.clear()\nraise OSError", "OSError", 3),
    ("import sys\nsys.modules['__main__'] = sys\nraise OSError", "OSError", 3),
    ("def f():\n    1 / 0\nf.__code__ = f.__code__.replace(co_linetable=b'')\nf()", "ZeroDivisionError", 4),
    ("raise SyntaxError('no', (__file__, -3, 0, ''))", "SyntaxError", 1),
]


@pytest.mark.parametrize("eval_last_expr", [False, True])
@sampled(("code", "kind", "line"), ODD_EXCEPTIONS)
async def test_an_odd_exception_is_reported_without_lines_of_the_server(
    api: Api, code: str, kind: str, line: int, eval_last_expr: bool
) -> None:
    result = (await api.eval({"code": code, "eval_last_expr": eval_last_expr})).document
    assert (result["error_type"], result["error_line"]) == (kind, line)
    assert "pyexec" not in result["stderr"]
    assert "ignored" not in result["stderr"]


@pytest.mark.parametrize("eval_last_expr", [False, True])
@pytest.mark.parametrize(
    ("entrypoint", "kind", "line"),
    [
        ("main.py", "ZeroDivisionError", 4),
        ("uses_broken.py", "SyntaxError", 2),
        ("broken.py", "SyntaxError", 2),
    ],
)
async def test_the_error_line_is_the_innermost_line_of_the_users_files(
    api: Api, entrypoint: str, kind: str, line: int, eval_last_expr: bool
) -> None:
    files = [{"name": name, "content": content} for name, content in FILES.items()]
    body = {"files": files, "entrypoint": entrypoint, "eval_last_expr": eval_last_expr}
    result = (await api.eval(body)).document
    assert (result["error_type"], result["error_line"]) == (kind, line)


@sampled(
    ("code", "result"),
    [
        ("1 + 1", "2"),
        ("'text'", "'text'"),
        ("None", "None"),
        ("x = 3\nx ** 2  # comment\n\n", "9"),
        ("print('printed')", "None"),
        ("'ü€𝄞\\n'", "'ü€𝄞\\n'"),
        ("class A:\n    def __repr__(self): return 'a\\udcff'\nA()", "a\\udcff"),
        ("def f():\n    return [f.__module__, __name__]\nf()", "['__main__', '__main__']"),
        ("import sys\n(sys.argv, sys.stdin.read())", "(['main.py', 'one'], 'in')"),
        ("from __future__ import annotations\nlambda: 0 and 1", None),
        ("import pickle\nclass A: pass\ntype(pickle.loads(pickle.dumps(A()))) is A", "True"),
        ("__file__", "'/work/main.py'"),
        ("x = 1", None),
        ("", None),
        ("if True:\n    5", None),
    ],
    every=2,
)
async def test_the_value_of_the_last_expression_is_returned(api: Api, code: str, result: str | None) -> None:
    body = {"code": code, "eval_last_expr": True, "script_args": ["one"], "stdin": "in"}
    document = (await api.eval(body)).document
    assert (document["status"], document["exit_code"], document["stderr"]) == ("completed", 0, "")
    if code.startswith("from __future__"):
        assert document["result"].startswith("<function <lambda>")
    else:
        assert document.get("result") == result


@pytest.mark.parametrize("form", ["code", "files", "entrypoint"])
@sampled(
    "start", ["#!python\n# -*- coding: latin-1 -*-\n", "# coding=cp1252\r\n", "# coding: utf-16\n"], every=2
)
async def test_the_text_runs_whatever_encoding_it_declares(api: Api, start: str, form: str) -> None:
    code = f"{start}'é€'"
    body = {"code": code} if form == "code" else {"files": [{"name": "a/b.py", "content": code}]}
    document = (await api.eval({**body, "eval_last_expr": True})).document
    assert (document.get("result"), document["stderr"]) == ("'é€'", "")


async def test_a_script_finds_the_same_names_with_and_without_its_last_expression(api: Api) -> None:
    code = "print({k: type(v) for k, v in sorted(globals().items())}, __annotations__)"
    without, with_it = [
        (await api.eval({"code": code, "eval_last_expr": last})).document for last in (False, True)
    ]
    assert with_it["stdout"] == without["stdout"], with_it


async def test_an_expression_after_an_exit_is_not_reached(api: Api) -> None:
    document = (await api.eval({"code": "import sys\nsys.exit(3)\n42", "eval_last_expr": True})).document
    assert (document["exit_code"], "result" in document) == (3, False)


WRITES_TO_ALL_DESCRIPTORS = """
import os, subprocess, sys, threading
print('result', 41, flush=True)
def scribble():
    for number in range(3, 256):
        for data in (b'41', b'x' * 16 + b'41'):
            try:
                os.write(number, data)
            except OSError:
                pass
scribble()
child = 'import os\\nfor n in range(3, 256):\\n try: os.write(n, b"41")\\n except OSError: pass'
subprocess.run([sys.executable, '-c', child], close_fds=False)
if not os.fork():
    scribble()
    os._exit(0)
os.wait()
threading.Thread(target=scribble).start()
"""


async def test_writes_to_other_descriptors_do_not_change_the_result(api: Api) -> None:
    document = (
        await api.eval({"code": f"{WRITES_TO_ALL_DESCRIPTORS}\n6 * 7", "eval_last_expr": True})
    ).document
    assert (document["result"], document["stdout"]) == ("42", "result 41\n")
    document = (
        await api.eval({"code": f"{WRITES_TO_ALL_DESCRIPTORS}\nx = 6 * 7", "eval_last_expr": True})
    ).document
    assert "result" not in document


async def test_a_long_result_is_cut_and_marked_truncated(api: Api) -> None:
    document = (await api.eval({"code": "'x' * 65534", "eval_last_expr": True})).document
    assert document["result"] == repr("x" * 65534)
    assert "result" not in document["truncated"]
    document = (await api.eval({"code": "'€' * 10_000_000", "eval_last_expr": True})).document
    assert document["result"] == "'" + "€" * ((65536 - 1) // 3)
    assert document["truncated"] == {"stdout": False, "stderr": False, "result": True}


async def test_python_version_selects_an_image(api: Api) -> None:
    document = (await api.eval({"code": "1", "python_version": "3.99"})).document
    assert (document["status"], document["error_type"]) == ("failed", "image_unavailable")
    assert "python:3.99-slim" in document["error"]


async def test_eval_runs_commands_and_returns_output_files(api: Api) -> None:
    code = "open('own.txt', 'w').write(open('/opt/word').read())"
    body = {"code": code, "pre_commands": ["echo prepared > /opt/word"], "output_files": ["*.txt"]}
    document = (await api.eval(body)).document
    assert (document["status"], document["stderr"]) == ("completed", "")
    assert document["files"] == [{"path": "own.txt", "size": 9}]
    path = f"/api/v1/executions/{document['execution_id']}/files/own.txt"
    async with api.session.get(path) as answer:
        assert (answer.status, await answer.text()) == (200, "prepared\n")


@pytest.mark.parametrize(
    ("field", "wrong"), [("pre_commands", [" "]), ("output_files", ["../x"]), ("output_files", "*.txt")]
)
async def test_wrong_commands_and_patterns_are_named(api: Api, field: str, wrong: object) -> None:
    answer = await api.eval({"code": "1", field: wrong})
    assert (answer.status, answer.document["code"]) == (400, "invalid_request")
    assert answer.document["field"].startswith(field)
