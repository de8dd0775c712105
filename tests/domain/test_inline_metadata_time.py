"""Test that reading inline metadata takes linear time, whatever the script contains."""

import time
from contextlib import suppress

import pytest

from pyexec.domain.inline_metadata import (
    BLOCK_BYTES_MAX,
)
from pyexec.errors import InvalidRequest
from tests.domain.scripts import block, read

SIZE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    "line",
    [
        "# /// script\n",
        "# /// script\n#\n",
        "# /// script\n#\n# ///\n\n",
        "# /// script\n# ///\n\n",
        "# ///\n",
        "#\n",
        "# /// a",
        "# /// script\r",
        "# x\n",
    ],
    ids=repr,
)
def test_the_time_is_linear(line: str) -> None:
    """The regular expression of the specification needs hours for some of these."""
    source = (b"# /// script" + (line * (SIZE // len(line))).encode())[:SIZE]
    begun = time.process_time()
    with suppress(InvalidRequest):
        read(source)
    assert time.process_time() - begun < 4


@pytest.mark.parametrize(
    "line", ["a" + ".a" * 2040 + " = 1\n", "[" + "a." * 2040 + "a]\nb = 1\n", "a = [[[[[[1]]]]]]\n"]
)
def test_the_parser_takes_little_time_for_a_block_of_the_maximum_size(line: str) -> None:
    toml = "".join(line.replace("a", chr(97 + n % 26)) for n in range(BLOCK_BYTES_MAX // len(line)))
    begun = time.process_time()
    with suppress(InvalidRequest):
        read(block(toml.rstrip("\n")))
    assert time.process_time() - begun < 4


@pytest.mark.parametrize("part", ["a", "'a = b'", '"\\""'], ids=repr)
def test_many_keys_below_a_deep_table_take_little_time(part: str) -> None:
    header = "[" + f"{part}." * (4000 // (len(part) + 1)) + "a]\n"
    toml = header + "".join(f"{n:x} = 1\n" for n in range(3000))
    begun = time.process_time()
    with suppress(InvalidRequest):
        read(block(toml.rstrip("\n")))
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("text", ['"\\', '"', "'a.", "a . ", "a", "a ", '"a" '], ids=repr)
def test_the_search_for_long_keys_is_linear(text: str) -> None:
    toml = "\n".join([text * (4096 // len(text))] * 7)
    begun = time.process_time()
    with suppress(InvalidRequest):
        read(block(toml))
    assert time.process_time() - begun < 0.5
