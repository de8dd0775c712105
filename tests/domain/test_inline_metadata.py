"""Test the inline metadata of scripts: which blocks are found, and what is rejected."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.inline_metadata import (
    BLOCK_BYTES_MAX,
    InlineMetadata,
    Script,
    _script_blocks,
    read_inline_metadata,
)
from pyexec.domain.requirements import parse_requirements
from pyexec.errors import InvalidRequest
from tests.domain.scripts import block, read

REFERENCE = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""The regular expression of the specification "Inline script metadata"."""


def refused(source: str | bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(source)
    assert caught.value.field == "code"
    assert str(caught.value).startswith("inline metadata of 'main.py': ")
    return str(caught.value)


def reference_blocks(source: str) -> list[tuple[int, str]]:
    found = []
    for match in REFERENCE.finditer(source):
        if match["type"] == "script":
            lines = match["content"].removesuffix("\n").split("\n")
            content = "".join((line[2:] if line.startswith("# ") else line[1:]) + "\n" for line in lines)
            found.append((source.count("\n", 0, match.start()) + 1, content))
    return found


LINES = st.sampled_from(
    [
        "# /// script",
        "# ///",
        "# /// other-1",
        "#",
        "# a",
        "#a",
        "",
        "x = 1",
        " # /// script",
        "# /// script ",
    ]
)


@given(st.lists(LINES, max_size=14), st.sampled_from(["", "\n"]))
def test_the_same_blocks_are_found_as_by_the_expression_of_the_specification(
    lines: list[str], end: str
) -> None:
    source = "\n".join(lines) + end
    found = [(each.line, each.content.decode()) for each in _script_blocks(source.encode()) if each.is_closed]
    assert found == reference_blocks(source)


@given(st.text(alphabet="# /script\nx\u2028é\x0c", max_size=80))
def test_any_text_is_read_as_the_specification_says(text: str) -> None:
    source = f"# /// script\n{text}\n# ///"
    found = [(each.line, each.content.decode()) for each in _script_blocks(source.encode()) if each.is_closed]
    assert found == reference_blocks(source)


def test_the_example_of_the_specification() -> None:
    source = '#!/usr/bin/env python\n"""Doc"""\n\n' + block(
        'requires-python = ">=3.11"\ndependencies = [\n  "requests<3",\n  "rich",\n]'
    )
    assert read(source + "import requests\n") == InlineMetadata(
        requirements_txt="requests<3\nrich\n", requires_python=">=3.11"
    )


@pytest.mark.parametrize(
    "source",
    [
        "",
        "print(1)",
        "x = '# /// script'",
        " # /// script\n",
        "# /// script \n# a = 1\n",
        "# /// script: an example\n",
        "# /// script\n# ///\nprint(1)",
        "# /// a\n# /// script\n# ///\n",
        block("a", "b"),
        "# /// b\n# a = 1\n",
    ],
)
def test_a_script_without_a_block_has_no_metadata(source: str) -> None:
    assert read(source) is None


@pytest.mark.parametrize(
    "toml", ["", "dependencies = []", "[tool.uv]\nindex-url = 'https://example.org'\n", "[run]"]
)
def test_an_empty_block_needs_nothing_and_tools_are_ignored(toml: str) -> None:
    assert read(block(toml)) == InlineMetadata(requirements_txt=None, requires_python=None)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_newlines_and_a_byte_order_mark_are_read_as_python_reads_them(newline: str, mark: bytes) -> None:
    source = block('dependencies = ["six"]\n# grün').replace("\n", newline)
    found = read(mark + source.encode())
    assert found == InlineMetadata(requirements_txt="six\n", requires_python=None)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "gb18030", "koi8-r"])
def test_the_declared_encoding_decides(encoding: str) -> None:
    text = {"latin-1": "é", "cp1252": "€", "koi8-r": "я"}.get(encoding, "表")
    source = f"#!/usr/bin/python\n# coding: {encoding}\n\n" + block(
        f"dependencies = ['six']\n[tool.a]\nb = '{text}'"
    )
    assert read(source.encode(encoding)) == InlineMetadata(requirements_txt="six\n", requires_python=None)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            block("a = 1") + "\n" + block("b = 1"),
            "line 5: there is a second script block; the first one is at line 1",
        ),
        ("x = 1\n" + block("\ndependencies = ["), "line 4: not TOML: Invalid value; correct it"),
        (block("a = 1\nb = [\n'x',"), "line 4: not TOML: Invalid value; correct it"),
        (block('a = """\nb\nc'), "line 4: not TOML: Unterminated string"),
        (
            block("a = 1") + block("b = 1"),
            "line 3: not TOML: Invalid statement; a block ends at the last `# ///` of its comment lines, so add",
        ),
        (block("a = 1") + "# ///\n", "line 3: not TOML: Invalid statement; a block ends at the last `# ///`"),
        (
            block("a = [") + block("b = 1"),
            "line 3: not TOML: Invalid value; a block ends at the last `# ///`",
        ),
        ("x = 1\n" + block("a = 1\ndependencies = [,]"), "line 4: not TOML: Invalid value"),
        (block("a = 1\na = 2"), "line 3: not TOML: Cannot overwrite a value"),
        (block("a = 2026-02-30"), "not TOML"),
        (block("a = " + "[" * 3000), "line 1: the block is nested too deeply"),
        (block("a = 1\nb" + ".a" * 32 + " = 1"), "line 3: a key has more than 32 parts"),
        (block("[a" + " . a" * 32 + "]"), "line 2: a key has more than 32 parts"),
        (block("[a" + '."\\"b = c"' * 32 + "]"), "line 2: a key has more than 32 parts"),
        (block("a = {'b'" + ".'b'" * 32 + " = 1}"), "line 2: a key has more than 32 parts"),
        (block("a = '" + "x" * 5000 + "'"), "line 2: it is longer than 4096 characters"),
        (block("a = 1\n" * BLOCK_BYTES_MAX), f"at most {BLOCK_BYTES_MAX} bytes are allowed"),
        (block("dependencies = 'six'"), "dependencies must be a list of strings"),
        (block("dependencies = ['six', 1]"), "dependencies must be a list of strings"),
        (block("dependencies = {a = 1}"), "dependencies must be a list of strings"),
        (block("dependencies = ['--index-url https://example.org']"), "options are not allowed here"),
        (block("dependencies = ['-r a.txt']"), "options are not allowed here"),
        (block("dependencies = ['six --hash=sha256:00']"), "'six --hash=sha256:00'"),
        (block("dependencies = ['six # why']"), "a single requirement without a comment"),
        (block('dependencies = ["six\\nrich"]'), "a single requirement without a comment"),
        (block('dependencies = ["six\\\\"]'), "dependency"),
        (block(r"dependencies = ['six @ https://x/six.whl?\', 'rich']"), "ends with a backslash"),
        (block("dependencies = ['']"), "line 2: dependency ''"),
        ("x = 1\n" + block("dependencies = [\n  'six',\n  'a b',\n]"), "line 5: dependency 'a b'"),
        (block("a = 1\ndependencies = ['\"']"), "line 3: dependency '\"'"),
        (block('a = 1\ndependencies = ["\\u002d"]'), "block at line 1: dependency '-'"),
        (block("dependencies = ['six>=" + "9" * 4060 + "', '6=']"), "line 2: dependency '6='"),
        (
            block('dependencies = ["""six>=' + ("9" * 3000 + "\\\n") * 2 + '"""]'),
            "block at line 1: dependency 'six>=" + "9" * 95 + "'…: it is longer than 4096 characters",
        ),
        (block("dependencies = ['./local']"), "a local path is not available"),
        (block("dependencies = ['six @ file:///tmp/six.whl']"), "a local path is not available"),
        (block("dependencies = ['https://example.org/six.whl']"), "a URL needs a name before it"),
        (block("requires-python = 'three'"), "requires-python must be a version specifier"),
        (block("requires-python = 3.12"), "requires-python must be a version specifier"),
        (block("requires-python = ['>=3']"), "requires-python must be a version specifier"),
        (block("requires-python = 0x1" + "0" * 4000), "requires-python must be a version specifier"),
        (block("requires-python" + ".a" * 31 + " = 1"), "requires-python must be a version specifier"),
        (block("requires-python = '>=" + "9" * 4000 + "'"), "at most 256 characters and 16 clauses"),
        (block('requires-python = """\n' + "!=2.1,\n" * 3000 + '!=2"""'), "at most 256 characters"),
        ("# coding: nothing\n" + block("a = 1"), "the script cannot be decoded: unknown encoding: nothing"),
        ("# coding: " + "x" * 5000 + "\n" + block("a = 1"), "x…; correct it"),
        ("# coding: bz2\n" + block("a = 1"), "the script cannot be decoded"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_line(source: str, said: str) -> None:
    assert said in refused(source)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("# /// script", 1),
        ("# /// script\nprint(1)", 1),
        ("# /// script\n# dependencies = ['six']\n\nimport six\n", 1),
        ("x = 1\n# /// script\n# dependencies = ['six']", 2),
        ("# /// script\n# a = 1\n#///\n", 1),
        ("# /// script\n# a = 1\n# /// \n", 1),
        ("# /// script\n# a = 1\n\n# b = 2\n# ///\n", 1),
        ("# /// script\r\n# a = 1\r\n", 1),
        (block("a = 1") + "\n# /// script\n# b = 1\n", 5),
        ("# /// script\n# b = 1\n\n" + block("a = 1"), 1),
    ],
)
def test_a_block_that_is_not_closed_is_rejected(source: str, line: int) -> None:
    assert f"the script block that starts at line {line} is not closed by `# ///`" in refused(source)


@pytest.mark.parametrize(
    ("source", "end"),
    [
        ("# /// script\n#\tdependencies = []\n# ///\n", 2),
        ("# /// script\n# dependencies = []\n# /// \nimport six\n", 4),
        ("x = 1\r\n# /// script\r\n# dependencies = []", 4),
    ],
    ids=["tab", "space at the end", "no line break"],
)
def test_the_message_names_the_line_where_the_comment_lines_end(source: str, end: int) -> None:
    assert f"is not closed by `# ///` before line {end}, where its comment lines end" in refused(source)


def test_a_block_at_the_end_of_a_cut_script_may_be_closed_later() -> None:
    cut = Script("main.py", b"# /// script\n# dependencies = ['six']\n# x", "archive", is_whole=False)
    assert read_inline_metadata(cut) is None
    complete = Script("main.py", b"# /// script\n# a = 1\nimport six", "archive", is_whole=False)
    with pytest.raises(InvalidRequest, match="is not closed"):
        read_inline_metadata(complete)


def test_a_block_in_the_wrong_encoding_is_rejected_with_its_line() -> None:
    assert "line 4: it is not utf-8 text" in refused(b"x = 1\n# /// script\n# a = 1\n# b = '\xff'\n# ///\n")


@given(
    st.lists(
        st.sampled_from(
            ["six", "rich>=1", " idna==3.4 ", "a[b]; python_version < '3'", "u @ https://e.org/u.whl"]
        )
    )
)
def test_dependencies_are_the_lines_of_a_requirements_txt(dependencies: list[str]) -> None:
    quoted = ", ".join(f'"{each}"' for each in dependencies)
    found = read(block(f"dependencies = [{quoted}]"))
    assert found is not None
    text = "".join(f"{each.strip()}\n" for each in dependencies)
    assert found.requirements_txt == (text or None)
    requirements = parse_requirements(text)
    assert (requirements.lines if requirements else ()) == tuple(each.strip() for each in dependencies)
