"""Test what tests/wire/metadata.json does not cover: omitted and unknown options."""

import pytest

from pyexec_client.options import metadata


@pytest.mark.parametrize("options", [{}, {"timeout": None, "env": None, "network": None}])
def test_options_that_are_not_given_are_omitted(options):
    assert metadata(options) == {}


def test_an_unknown_option_is_an_error_that_lists_the_options():
    with pytest.raises(TypeError, match=r"'memory'; allowed are .*memory_mb"):
        metadata({"memory": 5})
