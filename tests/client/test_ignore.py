"""Which files are left out is in tests/wire/ignore.json; here is the rest."""

import pytest

from pyexec_client.ignore import IgnoreRules


def test_only_directories_that_may_hold_an_exception_are_looked_into():
    rules = IgnoreRules.parse("docs\nbuild\n!docs/README.md")
    assert not rules.prunes("docs")
    assert rules.prunes("build")
    assert rules.prunes("doc")


@pytest.mark.parametrize("line", ["!", "[z-a]"])
def test_a_line_that_makes_no_sense_is_named(line):
    with pytest.raises(ValueError, match=r"\.dockerignore"):
        IgnoreRules.parse(line)
