"""Test the typed displays of the Python client."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from pyexec_client import Display

PNG = base64.b64encode(b"\x89PNG").decode()


@pytest.mark.parametrize(
    ("data", "mime_type", "suffix", "content"),
    [
        ({"text/plain": "t", "text/html": "<b>", "image/png": PNG}, "image/png", ".png", b"\x89PNG"),
        ({"text/plain": "t", "text/html": "<b>ü"}, "text/html", ".html", "<b>ü".encode()),
        ({"image/svg+xml": "<svg/>"}, "image/svg+xml", ".svg", b"<svg/>"),
        ({"application/json": "text"}, "application/json", ".json", b'"text"'),
        ({"text/plain": "t", "a/b+json": {"x": 1}}, "a/b+json", ".json", b'{"x": 1}'),
        ({"text/plain": "t", "x/b": "u", "x/a": "v"}, "x/a", ".txt", b"v"),
        ({"audio/wav": PNG}, "audio/wav", ".bin", b"\x89PNG"),
        ({"text/plain": "t"}, "text/plain", ".txt", b"t"),
    ],
)
def test_the_best_form_is_the_content(
    data: dict[str, Any], mime_type: str, suffix: str, content: bytes
) -> None:
    display = Display.from_json({"data": data, "metadata": None})
    assert (display.mime_type, display.suffix, display.content()) == (mime_type, suffix, content)


def test_the_suffix_of_a_path_selects_the_form(tmp_path: Path) -> None:
    display = Display(data={"text/plain": "t", "image/jpeg": PNG, "application/json": [1]})
    for name, content in (("a.txt", b"t"), ("a.JPEG", b"\x89PNG"), ("a.dat", b"\x89PNG"), ("a", b"\x89PNG")):
        assert display.save(tmp_path / name).read_bytes() == content
    assert json.loads(display.save(tmp_path / "b.txt", "application/json").read_bytes()) == [1]
    with pytest.raises(ValueError, match=r"no .png form, only .*image/jpeg"):
        display.save(tmp_path / "a.png")
    with pytest.raises(KeyError):
        display.content("image/png")
    with pytest.raises(ValueError, match=r".+"):
        Display(data={"image/png": "%%%"}).content()
