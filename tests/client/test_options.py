"""Which field each option becomes is in tests/wire/metadata.json; here is the rest."""

import pytest

from pyexec_client.options import metadata


@pytest.mark.parametrize("options", [{}, {"timeout": None, "env": None, "network": None}])
def test_what_is_not_given_is_the_servers_to_decide(options):
    assert metadata(options) == {}


def test_an_unknown_option_is_named_with_those_there_are():
    with pytest.raises(TypeError, match=r"'memory'; allowed are .*memory_mb"):
        metadata({"memory": 5})
