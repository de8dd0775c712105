"""Test what tests/wire/metadata.json does not cover: omitted and unknown options, and values of a wrong type."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from pyexec_client import AsyncClient, Client
from pyexec_client.options import RunOptions, metadata


@pytest.mark.parametrize("options", [{}, {"timeout": None, "env": None, "network": None}])
def test_options_that_are_not_given_are_omitted(options):
    assert metadata(options) == {}


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("memory", "memory_mb"),
        ("timeout_seconds", "timeout"),
        ("requirements_txt", "requirements"),
        ("docker_image", "image"),
        ("env_vars", "env"),
        ("network_disabled", "network"),
        ("idle_timeout_seconds", "timeout"),
        ("packages", "requirements"),
        ("environment", "env"),
        ("zzz", None),
    ],
)
def test_an_unknown_option_is_an_error_that_lists_the_options(unknown, meant):
    with pytest.raises(TypeError) as raised:
        metadata({unknown: 5})
    allowed = f"unknown option {unknown!r}; allowed are {', '.join(RunOptions.__annotations__)}"
    assert str(raised.value).startswith(allowed)
    assert str(raised.value) == allowed + (f"; did you mean {meant!r}?" if meant else "")


WRONG = [
    ("entrypoint", Path("main.py"), "a str"),
    ("image", 3.12, "a str"),
    ("requirements", Path("requirements.txt"), "read_text"),
    ("requirements", ["numpy"], "the text of a requirements.txt"),
    ("pre_commands", "apt-get update", "a list of str"),
    ("pre_commands", ["a", 1], "a str"),
    ("stdin", b"x", "text"),
    ("stdin", 7, "text"),
    ("env", ["A=1"], "{'NAME': 'value'}"),
    ("env", {"A": 1}, "a str"),
    ("env", {1: "A"}, "a str"),
    ("args", "x", "a list of str"),
    ("args", [1], "a str"),
    ("output_files", "*.png", "a list of patterns"),
    ("timeout", "10", "an int or a float"),
    ("timeout", True, "an int or a float"),
    ("timeout", Decimal(1), "an int or a float"),
    ("memory_mb", 64.5, "an int"),
    ("disk_mb", "64", "an int"),
    ("cpu_shares", "1024", "an int"),
    ("cpus", [1], "an int or a float"),
    ("cpu_seconds", "1", "an int or a float"),
    ("network", "yes", "True or False"),
    ("network", 1, "True or False"),
    ("inline_requirements", "no", "True or False"),
    ("webhook_url", 7, "must be a str"),
    ("capture_displays", 1, "True or False"),
]


@pytest.mark.parametrize(("option", "value", "expected"), WRONG)
def test_a_value_of_a_wrong_type_is_an_error_that_says_what_is_allowed(option, value, expected):
    with pytest.raises(TypeError) as raised:
        metadata({option: value})
    assert option in str(raised.value)
    assert " must be " in str(raised.value)
    assert expected in str(raised.value)
    assert " not " in str(raised.value)


def test_every_option_has_a_check_of_its_type():
    assert {option for option, _, _ in WRONG} == set(RunOptions.__annotations__)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_must_be_finite(value):
    with pytest.raises(ValueError, match="timeout must be a finite number"):
        metadata({"timeout": value})


@pytest.mark.parametrize("name", ["", "A=B"])
def test_a_variable_has_a_valid_name(name):
    with pytest.raises(ValueError, match="not the name of a variable"):
        metadata({"env": {name: "1"}})


def test_equal_types_are_accepted():
    assert metadata({"args": ("a", "b"), "timeout": Fraction(1, 2), "cpus": 2}) == {
        "script_args": ["a", "b"],
        "config": {"timeout_seconds": 0.5, "cpus": 2},
    }


@pytest.mark.parametrize(
    "address",
    [
        "host:8080",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host:99999",
        "http://host: 80",
        "http://host/?x=1",
        "http://host/base#part",
    ],
)
def test_an_address_that_is_no_server_is_refused(address):
    with pytest.raises(ValueError, match="it must look like http://host:8080"):
        AsyncClient(address)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.run(7), "source must be"),
        (lambda client: client.run({"main.py": 7}), "the content of 'main.py' must be"),
        (lambda client: client.run({7: ""}), "a file name must be"),
        (lambda client: client.run("1", idempotency_key=7), "idempotency_key must be"),
        (lambda client: client.eval(Path("x.py")), "code must be"),
        (lambda client: client.eval({"x.py": b""}), r"code\['x.py'\] must be"),
        (lambda client: client.eval("1", python_version=3.12), "python_version must be a str such as '3.12'"),
        (lambda client: client.eval("1", last_expression="yes"), "last_expression must be"),
        (lambda client: client.get(None), "execution_id must be"),
        (lambda client: client.wait("exe_1", "10"), "timeout must be"),
        (lambda client: client.file("exe_1", Path("x")), "path must be"),
        (lambda client: list(client.list(limit="5")), "limit must be"),
        (lambda client: list(client.map(["1"], concurrency="8")), "concurrency must be"),
        (lambda _: AsyncClient(b"http://x"), "base_url must be"),
        (lambda _: AsyncClient(token=b"x"), "token must be"),
    ],
)
def test_an_argument_of_a_wrong_type_is_an_error_that_names_it(call, words):
    with Client("http://127.0.0.1:1") as client, pytest.raises(TypeError, match=words):
        call(client)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_list_has_at_least_one_entry(limit):
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(ValueError, match=f"limit must be at least 1, not {limit}"),
    ):
        list(client.list(limit=limit))
