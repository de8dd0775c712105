"""Test how settings are parsed, and the error messages for wrong ones."""

import pytest

from pyexec.errors import SettingsError
from pyexec.limits import policy_of
from pyexec.settings import Settings
from pyexec.settings_parser import find_errors, read_settings, setting_docs
from pyexec.wiring.memory import memory_budget_mb
from pyexec.wiring.services import setups_max


@pytest.mark.parametrize(
    "variable", ["PYEXEC_ACCESS_LOG", "PYEXEC_STANDBY", "PYEXEC_STRICT", "PYEXEC_LOCAL_CLAIM"]
)
def test_switches_are_on_or_off_in_every_accepted_form(variable: str) -> None:
    name = variable.removeprefix("PYEXEC_").lower()
    for text in ("on", "ON", "true", "True", "1"):
        assert getattr(read_settings({variable: text}), name) is True
    for text in ("off", "Off", "false", "FALSE", "0"):
        assert getattr(read_settings({variable: text}), name) is False
    for text in ("yes", "", "2", "on "):
        with pytest.raises(SettingsError) as refused:
            read_settings({variable: text})
        assert str(refused.value) == f"{variable} is {text!r}; allowed: on, off (also true, false, 1, 0)"


def test_without_variables_all_settings_have_their_defaults() -> None:
    assert read_settings({}) == Settings()
    assert read_settings({"PATH": "/bin", "PYEXEC_TOKEN": "a", "PYEXEC_SERVER": "b"}) == Settings()


def test_the_defaults_shown_in_the_help_can_be_parsed() -> None:
    """`none` stands for an empty value."""
    shown = {doc.variable: "" if doc.default == "none" else doc.default for doc in setting_docs()}
    assert read_settings(shown) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("PYEXEC_PORT", "none", "a whole number from 0 to 65535"),
        ("PYEXEC_PORT", "-1", "a whole number from 0 to 65535"),
        ("PYEXEC_PORT", "65536", "a whole number from 0 to 65535"),
        ("PYEXEC_PORT", "\u0668\u0660\u0668\u0660", "a whole number from 0 to 65535"),
        ("PYEXEC_PORT", "80_80", "a whole number from 0 to 65535"),
        ("PYEXEC_PORT", " 8080", "a whole number from 0 to 65535"),
        ("PYEXEC_STOP_TIMEOUT", "1_0.5", "a number from 0 to 1000000000"),
        ("PYEXEC_STOP_TIMEOUT", ".", "a number from 0 to 1000000000"),
        ("PYEXEC_STOP_TIMEOUT", "e5", "a number from 0 to 1000000000"),
        ("PYEXEC_SANDBOX_UIDS", "1_0-20", "a number, or FIRST-LAST; from 1 to 2147483647"),
        ("PYEXEC_MAX_CONCURRENT", "1.5", "a whole number, at least 1"),
        ("PYEXEC_STOP_TIMEOUT", "inf", "a number from 0 to 1000000000"),
        ("PYEXEC_CLEANUP_TTL", "1e12", "a number from 0.001 to 1000000000"),
        ("PYEXEC_MAX_OUTPUT_BYTES", "9" * 20, "a whole number from 1 to 1125899906842624"),
        ("PYEXEC_MAX_FILES_MB", "9" * 13, "a whole number from 1 to 1073741824"),
        ("PYEXEC_MAX_CPU_SHARES", "262145", "a whole number from 2 to 262144"),
        ("PYEXEC_PIDS_MAX", "4194305", "a whole number from 8 to 4194304"),
        ("PYEXEC_MAX_CPUS", "nan", "a number, at least 0.01"),
        ("PYEXEC_LOG_FORMAT", "xml", "text, json"),
        ("PYEXEC_HOST", "", "text, not empty"),
        ("PYEXEC_DATA_DIR", "", "a path, not empty"),
        ("PYEXEC_SANDBOX_UIDS", "0-999", "a number, or FIRST-LAST; from 1 to 2147483647"),
        ("PYEXEC_SANDBOX_UIDS", "20-10", "a number, or FIRST-LAST; from 1 to 2147483647"),
        ("PYEXEC_SANDBOX_UIDS", "10-", "a number, or FIRST-LAST; from 1 to 2147483647"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(
    variable: str, text: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({variable: text})
    assert str(refused.value) == f"{variable} is {text!r}; allowed: {allowed}"


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("PYEXEC_MAX_CONCURENT", "PYEXEC_MAX_CONCURRENT"),
        ("PYEXEC_STOP_TIMOUT", "PYEXEC_STOP_TIMEOUT"),
        ("PYEXEC_CONSUL_ADDRESS", "PYEXEC_CONSUL_ADDR"),
    ],
)
def test_an_unknown_variable_names_the_nearest_setting(unknown: str, nearest: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({unknown: "1"})
    assert str(refused.value).startswith(f"{unknown} is not a setting; did you mean {nearest}?")


def test_an_unknown_variable_that_is_like_no_setting_names_none() -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({"PYEXEC_ZZZ": "1"})
    assert (
        str(refused.value) == "PYEXEC_ZZZ is not a setting; python-executor-server --help lists all settings"
    )


def test_all_errors_are_found_at_once() -> None:
    errors = find_errors({"PYEXEC_PORT": "x", "PYEXEC_STRICT": "maybe", "PYEXEC_ZZZ": "1"})
    assert [str(error).split()[0] for error in errors] == ["PYEXEC_PORT", "PYEXEC_STRICT", "PYEXEC_ZZZ"]
    assert find_errors({"PYEXEC_PORT": "8080"}) == []


def test_a_default_cannot_be_over_its_ceiling() -> None:
    (error,) = find_errors({"PYEXEC_DEFAULT_MEMORY_MB": "64", "PYEXEC_MAX_MEMORY_MB": "32"})
    assert str(error) == "PYEXEC_DEFAULT_MEMORY_MB is 64; allowed: at most PYEXEC_MAX_MEMORY_MB, which is 32"


def test_a_default_of_the_processor_that_the_engine_does_not_have_is_an_error() -> None:
    settings = read_settings({"PYEXEC_DEFAULT_CPUS": "4"})
    assert policy_of(settings, 4).defaults.cpus == 4
    with pytest.raises(SettingsError, match=r"PYEXEC_DEFAULT_CPUS is 4; allowed: at most .* which is 2"):
        policy_of(settings, 2)


@pytest.mark.parametrize("network", ["host", "bridge", "default", "bad name", "-x"])
@pytest.mark.parametrize("variable", ["PYEXEC_RUN_NETWORK", "PYEXEC_SETUP_NETWORK"])
def test_a_network_that_docker_would_not_create_is_an_error(variable: str, network: str) -> None:
    (error,) = find_errors({variable: network})
    assert str(error).startswith(f"{variable} is {network!r}; allowed: none, or ")


def test_a_ceiling_of_the_processor_is_the_default_too() -> None:
    def defaults(**variables: str) -> tuple[float | None, float | None]:
        settings = read_settings({f"PYEXEC_{name}": value for name, value in variables.items()})
        policy = policy_of(settings, 4)
        return policy.defaults.cpus, policy.defaults.cpu_seconds

    assert defaults() == (None, None)
    assert defaults(MAX_CPUS="1.5", MAX_CPU_SECONDS="60") == (1.5, 60)
    assert defaults(MAX_CPUS="8") == (4, None)
    assert defaults(MAX_CPUS="2", DEFAULT_CPUS="0.5", MAX_CPU_SECONDS="60", DEFAULT_CPU_SECONDS="5") == (
        0.5,
        5,
    )


def test_no_request_gets_more_than_its_part_of_the_processor_by_default() -> None:
    assert policy_of(read_settings({}), 4).ceilings.cpu_shares == 1024


def test_lists_are_separated_by_commas() -> None:
    assert read_settings({"PYEXEC_API_TOKENS": " a, b,,"}).api_tokens == ("a", "b")
    assert read_settings({"PYEXEC_ALLOW_UNENFORCED": "swap,disk"}).allow_unenforced == ("swap", "disk")
    assert read_settings({"PYEXEC_CONSUL_ADDR": ""}).consul_addr is None


def test_user_ids_are_a_range_or_a_number() -> None:
    assert read_settings({"PYEXEC_SANDBOX_UIDS": "5000-5009"}).sandbox_uids == range(5000, 5010)
    assert read_settings({"PYEXEC_SANDBOX_UIDS": "1000"}).sandbox_uids == range(1000, 1001)


@pytest.mark.parametrize(
    ("variables", "cpus", "memory_mb", "setups"),
    [
        ({}, 2, 8192, 2),
        ({}, 16, 16384, 4),
        ({}, 4, 1024, 1),
        ({"PYEXEC_SETUP_MEMORY_MB": "512"}, 16, 16384, 16),
        ({"PYEXEC_MAX_SETUPS": "7"}, 2, 1024, 7),
    ],
)
def test_setups_are_as_many_as_processors_and_half_of_the_memory_suffice_for(
    variables: dict[str, str], cpus: int, memory_mb: int, setups: int
) -> None:
    assert setups_max(read_settings(variables), cpus, memory_mb) == setups


@pytest.mark.parametrize(
    ("engine_mb", "budget_mb"),
    [
        (100_000, 65_668),
        (20_000, 20_000 - 1024),
        (4_000, 3_500),
        (3_500, 3_204),  # one run at the default limits
        (2_000, 2_000),
    ],
)
def test_the_memory_budget_leaves_memory_to_the_system(engine_mb: int, budget_mb: int) -> None:
    assert memory_budget_mb(Settings(), engine_mb) == budget_mb


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
    errors = find_errors(
        {"PYEXEC_PIP_PROXY": address, "PYEXEC_PIP_INDEX_URL": "https://index.example.com/simple"}
    )
    expected = [f"PYEXEC_PIP_PROXY is {address!r}; allowed: HOST:PORT"] if address else []
    assert [str(error) for error in errors] == expected


def test_the_proxy_needs_an_index() -> None:
    (error,) = find_errors({"PYEXEC_PIP_PROXY": "127.0.0.1:8081"})
    assert str(error) == "PYEXEC_PIP_PROXY needs PYEXEC_PIP_INDEX_URL"


@pytest.mark.parametrize(
    "address",
    ["replica", "replica:8080", "http://", "http://replica:99999", "http://a:1?b=c", "http://a:1/#"],
)
def test_a_malformed_advertised_address_is_named(address: str) -> None:
    (error,) = find_errors({"PYEXEC_ADVERTISE_ADDR": address})
    assert str(error) == f"PYEXEC_ADVERTISE_ADDR is {address!r}; allowed: http://host:port"
