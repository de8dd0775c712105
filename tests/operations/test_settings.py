"""Test that malformed settings are named at the start, before anything uses them."""

import pytest

from pyexec.settings_parser import find_errors

INDEX = "https://reader:secret@index.example.com/simple"


@pytest.mark.parametrize("variable", ["PYEXEC_API_TOKENS", "PYEXEC_ALLOWED_IMAGES", "PYEXEC_WEBHOOK_SECRETS"])
@pytest.mark.parametrize("text", [",", " ", " , ,"])
def test_a_list_without_items_is_wrong_unless_it_is_empty(variable: str, text: str) -> None:
    """`$A,$B` of two unset variables must not turn authentication off."""
    (error,) = find_errors({variable: text})
    assert str(error) == f"{variable} is {text!r}; allowed: a comma-separated list"
    assert not find_errors({variable: ""})


@pytest.mark.parametrize(
    "url", ["index", "https://", "https://[::1/simple", "https://reader:secret@index:port/"]
)
def test_a_malformed_index_is_named_without_its_password(url: str) -> None:
    (error,) = find_errors({"PYEXEC_PIP_INDEX_URL": url})
    assert str(error) == "PYEXEC_PIP_INDEX_URL is not a URL that begins with https:// or http://"


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":80", "host:port", "host:99999", "http://host:80", "a:b@host:80"]
)
def test_a_malformed_address_of_the_proxy_is_named(address: str) -> None:
    errors = find_errors({"PYEXEC_PIP_PROXY": address, "PYEXEC_PIP_INDEX_URL": INDEX})
    expected = [f"PYEXEC_PIP_PROXY is {address!r}; allowed: HOST:PORT"] if address else []
    assert [str(error) for error in errors] == expected


def test_the_proxy_needs_an_index() -> None:
    (error,) = find_errors({"PYEXEC_PIP_PROXY": "127.0.0.1:8081"})
    assert str(error) == "PYEXEC_PIP_PROXY needs PYEXEC_PIP_INDEX_URL"


@pytest.mark.parametrize("address", ["replica", "replica:8080", "http://", "http://replica:99999"])
def test_a_malformed_advertised_address_is_named(address: str) -> None:
    (error,) = find_errors({"PYEXEC_ADVERTISE_ADDR": address})
    assert str(error) == f"PYEXEC_ADVERTISE_ADDR is {address!r}; allowed: http://host:port"
