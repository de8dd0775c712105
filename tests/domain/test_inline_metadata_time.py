"""Test that reading inline metadata takes linear time, whatever the script contains."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from pyexec.domain.inline_metadata import BLOCK_BYTES_MAX
from pyexec.errors import InvalidRequest
from tests.domain.scripts import block, read
from tests.support.growth import FACTOR, assert_growth

SIZE = 1024 * 1024
LINES = 8
"""The number of lines in a block of long lines."""

Make = Callable[[int], str | bytes]
"""Makes a script of about this size."""


def assert_linear(make: Make, size: int) -> None:
    def attempt(script: str | bytes) -> None:
        with suppress(InvalidRequest):
            read(script)

    assert_growth(partial(attempt, make(size // FACTOR)), partial(attempt, make(size)))


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
    assert_linear(lambda size: (b"# /// script" + (line * (size // len(line))).encode())[:size], SIZE)


def long_keys(size: int) -> str:
    """Return lines with a key of many parts. The longest allowed line is an eighth of the largest block."""
    return "\n".join(f"{letter}{f'.{letter}' * (size // 16 - 8)} = 1" for letter in "abcdefgh")


def nested_lists(size: int) -> str:
    """Return many short lists of lists."""
    return "\n".join(f"k{number} = [[[[[[1]]]]]]" for number in range(size // 24))


@pytest.mark.parametrize("toml", [long_keys, nested_lists])
def test_the_parser_takes_linear_time(toml: Callable[[int], str]) -> None:
    assert_linear(lambda size: block(toml(size)), BLOCK_BYTES_MAX)


@pytest.mark.parametrize("part", ["a", "'a = b'", '"\\""'], ids=repr)
def test_many_keys_below_a_deep_table_take_linear_time(part: str) -> None:
    def deep_table(size: int) -> str:
        header = f"[{f'{part}.' * ((size // 8 - 8) // (len(part) + 1))}a]"
        return block("\n".join([header, *(f"{number:x} = 1" for number in range(size // 12))]))

    assert_linear(deep_table, BLOCK_BYTES_MAX)


@pytest.mark.parametrize("text", ['"\\', '"', "'a.", "a . ", "a", "a ", '"a" '], ids=repr)
def test_the_search_for_long_keys_is_linear(text: str) -> None:
    def long_lines(size: int) -> str:
        return block("\n".join([text * (size // LINES // len(text))] * (LINES - 1)))

    assert_linear(long_lines, BLOCK_BYTES_MAX)
