"""Scripts in different encodings, line endings and sizes, and files that are not scripts."""

import io
import marshal
import zipfile
from importlib.util import MAGIC_NUMBER

from tests.sandbox.corpus.case import Case

_SHOW = "print(ascii('ü€𝄞'), __file__)\n"
_BOM = b"\xef\xbb\xbf"
PIPE_BYTES = 65536


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", "import sys; print('zipped', sys.argv, sys.path[0], __file__)")
    return buffer.getvalue()


def _compiled() -> bytes:
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(compile("print('compiled', __file__)", "x.py", "exec"))


def _padded(size: int) -> bytes:
    text = b"print('end')\n"
    return b"#" * (size - len(text) - 1) + b"\n" + text


TEXT = {
    "empty": Case(""),
    "a space": Case(" "),
    "one comment": Case("# nothing"),
    "no newline at the end": Case("print(1)\nprint(2)"),
    "a backslash at the end": Case("print(1)\\"),
    "all kinds of line endings": Case(
        b"print(1)\r\nprint('''a\r\nb\rc\nd''')\rprint(3)\n\r\nprint(__file__)\r"
    ),
    "form feeds and odd spaces": Case("\x0cprint(1)\n\x0c\nif 1:\n\x0c    print(2)\n\tprint\n"),
    "shebang": Case("#!/usr/bin/env python3\nprint(__file__)\n"),
    "a byte order mark": Case(_BOM + _SHOW.encode()),
    "a byte order mark and a cookie": Case(_BOM + b"# coding: utf-8\n" + _SHOW.encode()),
    "a byte order mark and another cookie": Case(_BOM + b"# coding: latin-1\n" + _SHOW.encode()),
    "a cookie": Case("# -*- coding: utf-8 -*-\n" + _SHOW),
    "a cookie on the second line": Case("#!/usr/bin/python3\n# vim: set fileencoding=UTF_8-sig :\n" + _SHOW),
    "a cookie without a hyphen": Case("# coding: utf8\n" + _SHOW),
    "a cookie on the third line": Case("\n\n# coding: latin-1\n" + _SHOW),
    "a comment like a cookie": Case("# the coding of it:\n# coding = utf-8\n" + _SHOW),
    "latin-1": Case("# coding: latin-1\nprint(ascii('ü'))\n".encode("latin-1")),
    "latin-1 with a lone return": Case(b"#\r# coding: latin-1\rprint(ascii('\xfc'))"),
    "cp1252 on the second line": Case(b"\n# coding=cp1252\nprint(ascii('\x80'))\n"),
    "rot13": Case("# coding: rot13\ncevag('uv')\n"),
    "an unknown encoding": Case("# coding: no-such-thing\nprint(1)\n"),
    "latin-1 without a cookie": Case(b"print(1)\nprint('\xfc')\n"),
    "half a character": Case(b"print('\xe2\x82"),
    "utf-16": Case(_SHOW.encode("utf-16")),
    "a NUL": Case(b"print(1)\n\0print(2)\n"),
    "a control character": Case(b"print(1)\n\x1aprint(2)\n"),
    "what begins as compiled code does": Case(MAGIC_NUMBER[:2] + b"\nprint(1)\n"),
    "compiled code": Case(_compiled()),
    "a zip archive": Case(_zip()),
    "a script before a zip archive": Case(b"print('not this')\n" + _zip()),
    "as much as fits a pipe": Case(_padded(PIPE_BYTES)),
    "a byte more than fits a pipe": Case(_padded(PIPE_BYTES + 1)),
    "many lines": Case("x = 1\n" * 9000 + "print(x)\n"),
    "far more lines": Case("x = 1\n" * 200_000 + "print(x)\n"),
    "a long line": Case("print(len('" + "ü" * 20_000 + "'))\n"),
    "a long line that is wrong": Case("x = '" + "ü" * 9_000 + "' 1\n"),
    "deep nesting": Case("(" * 150 + "1" + ")" * 150 + "\nprint(" + "[" * 250 + "]" * 250 + ")"),
    "a future import": Case(
        "'text'\nfrom __future__ import annotations\nprint(__doc__, __annotations__)\nx: y\n"
    ),
    "an unknown future import": Case("from __future__ import braces\n"),
    "an invalid escape": Case("print('\\d')\nassert (1, 'x')\n1 is 1\n"),
}
