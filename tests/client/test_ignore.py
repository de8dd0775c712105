"""Test what tests/wire/ignore.json does not cover: pruning of directories, and invalid lines."""

import pytest

from pyexec_client.ignore import IgnoreRules


def test_only_directories_that_may_contain_an_exception_are_searched():
    rules = IgnoreRules.parse("docs\nbuild\n!docs/README.md")
    assert not rules.prunes("docs")
    assert rules.prunes("build")
    assert rules.prunes("doc")


@pytest.mark.parametrize("line", ["!", "[z-a]"])
def test_an_invalid_line_is_an_error(line):
    with pytest.raises(ValueError, match=r"\.dockerignore"):
        IgnoreRules.parse(line)
