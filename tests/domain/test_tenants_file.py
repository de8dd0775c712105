"""The file of tenants: tokens in plain text and as digests, and errors that name line and key but never a token."""

import hashlib
from pathlib import Path

import pytest

from pyexec.domain.tenants import DEFAULT_TENANT, OTHER_TENANTS, Tenant, Tenants
from pyexec.errors import SettingsError
from pyexec.settings_parser import read_settings
from pyexec.tenants_file import parse_tenants, read_tenants

DIGEST = hashlib.sha256(b"secret-b").hexdigest()
FILE = f"""
[acme]
tokens = ["secret-a", "other-a"]
weight = 3
max_running = 2
max_queued = 0
max_sessions = 3
max_setups = 4

["umbrella.corp"]
tokens = ["sha256:{DIGEST}"]
"""


def test_a_file_is_read() -> None:
    tenants = parse_tenants(FILE, "tenants.toml")
    assert tenants.get("acme") == Tenant(
        name="acme", weight=3, max_running=2, max_queued=0, max_sessions=3, max_setups=4
    )
    assert tenants.get("umbrella.corp") == Tenant(name="umbrella.corp")
    assert tenants.names == ("acme", "umbrella.corp")
    found = {
        token: tenants.authenticate(token) for token in ("secret-a", "other-a", "secret-b", "secret-c", "")
    }
    assert list(found.values()) == ["acme", "acme", "umbrella.corp", None, None]
    assert tenants.authenticate(f"sha256:{DIGEST}") is None
    assert "secret" not in repr(tenants)


def test_a_tenant_that_is_not_configured_has_default_values_and_a_common_label() -> None:
    tenants = parse_tenants(FILE, "tenants.toml")
    assert tenants.get("gone") == Tenant(name="gone")
    assert (tenants.label("acme"), tenants.label("gone")) == ("acme", OTHER_TENANTS)


def test_api_tokens_are_the_tenant_default(tmp_path: Path) -> None:
    alone = read_tenants(read_settings({"PYEXEC_API_TOKENS": "one,two"}))
    assert (alone.names, alone.authenticate("two")) == ((DEFAULT_TENANT,), DEFAULT_TENANT)
    file = tmp_path / "tenants.toml"
    file.write_text(f"{FILE}[default]\nweight = 5\n")
    both = read_tenants(read_settings({"PYEXEC_API_TOKENS": "one", "PYEXEC_TENANTS_FILE": str(file)}))
    assert both.authenticate("one") == DEFAULT_TENANT
    assert both.get(DEFAULT_TENANT).weight == 5
    added = parse_tenants(FILE, "tenants.toml", ["one"])
    assert added.names == ("acme", "umbrella.corp", DEFAULT_TENANT)
    assert [added.is_operator(name) for name in added.names] == [False, False, True]
    assert parse_tenants("[acme]\ntokens = ['x']\n", "tenants.toml").is_operator("acme")


def test_without_tokens_there_is_one_tenant_and_none_is_required() -> None:
    tenants = read_tenants(read_settings({}))
    assert tenants == Tenants()
    assert (tenants.names, tenants.requires_token) == ((DEFAULT_TENANT,), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no tenant"),
        (f"[a]\ntokens = ['s3cret']\nmax_running = {'9' * 5000}", "a number has too many digits"),
        (f"a = {'[' * 5000}", "which is nested too deeply"),
        ("[a]\ntokens = ['s3cret'", "not TOML: Unclosed array (at the end, line 2)"),
        (
            "[a]\ntokens = ['s3cret']\ntokens = ['x']",
            "not TOML: Cannot overwrite a value (at the end, line 3)",
        ),
        ("a = 1", "line 1: a is not a table; allowed: tables such as [a]"),
        ("# none\n[a]\n", "line 2: a has no token"),
        ("[a]\ntokens = []", "line 2: a.tokens has no token"),
        ("[a]\ntokens = 's3cret'", "line 2: a.tokens is not a list of texts"),
        ("[a]\ntokens = [1]", "line 2: a.tokens is not a list of texts"),
        ("[a]\ntokens = [' s3cret']", "line 2: a.tokens has a wrong token at position 1"),
        ("[a]\ntokens = ['x', 'sha256:s3cret']", "line 2: a.tokens has a wrong digest at position 2"),
        (
            "[a]\ntokens = ['x']\n\nweigth = 1",
            "line 4: a.weigth is unknown; allowed: tokens, weight, max_running",
        ),
        ("[a]\ntokens = ['x']\nweight = 0", "line 3: a.weight is 0; allowed: a whole number, from 1 to 1000"),
        ("[a]\ntokens = ['x']\nweight = true", "line 3: a.weight is True"),
        (
            "[a]\ntokens = ['x']\nmax_running = 1.5",
            "line 3: a.max_running is 1.5; allowed: a whole number, at least 1",
        ),
        (
            "[a]\ntokens = ['x']\nmax_queued = -1",
            "line 3: a.max_queued is -1; allowed: a whole number, at least 0",
        ),
        ("['a b']\ntokens = ['x']", "line 1: a b is not a name"),
        ("['']\ntokens = ['x']", 'line 1: "" is not a name'),
        (
            "[a.b]\ntokens = ['x']",
            'line 1: a.b is a table within a table; allowed: tables such as [acme], or ["acme.com"] with quotes',
        ),
        ("[a]\ntokens = ['x']\n[a.b]\nweight = 1", "line 3: a.b is a table within a table"),
        ("[a b]\ntokens = ['x']", "line 1, column 4); allowed: tables such as [acme]"),
        ("tokens = ['x']", "line 1: tokens is not a table; allowed: the key below a table such as [acme]"),
        ("['a.b']\ntokens = ['x']\nweight = 0", 'line 3: "a.b".weight is 0'),
        (
            "[a]\ntokens = ['s3cret']\n[b]\nweight = 1\ntokens = [\n 'x',\n 's3cret',\n]",
            "line 5: b.tokens contains a token that a.tokens has, too",
        ),
        ("[a]\ntokens = ['from-env']", "line 2: a.tokens contains a token that PYEXEC_API_TOKENS has, too"),
    ],
)
def test_an_error_names_the_line_and_the_key_but_no_token(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_tenants(text, "tenants.toml", ["from-env"] if "env" in text else [])
    assert message in str(caught.value)
    assert "PYEXEC_TENANTS_FILE" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "from-env" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    settings = read_settings({"PYEXEC_TENANTS_FILE": str(tmp_path / "absent.toml")})
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_tenants(settings)
