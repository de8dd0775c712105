"""Test which webhook URLs and addresses are allowed, the signature, and the settings."""

import base64

import pytest
from yarl import URL

from pyexec.domain.tenants import Tenant, Tenants
from pyexec.domain.webhooks import AllowedHost, WebhookPolicy, parse_secret, signed_headers
from pyexec.errors import InvalidRequest, SettingsError
from pyexec.settings_parser import read_settings
from pyexec.tenants_file import parse_tenants, webhook_policy

SECRET = b"0123456789abcdef0123456789abcdef"
SECRET_TEXT = "whsec_" + base64.b64encode(SECRET).decode()
HOSTS = (
    "hooks.example.com",
    "*.example.org",
    "http://intern:8000",
    "10.1.0.0/16",
    "http://127.0.0.1:9000",
    "[fd00::1]:8443",
)
POLICY = WebhookPolicy(hosts=tuple(map(AllowedHost.parse, HOSTS)), default_secrets=[SECRET])


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://HOOKS.example.com:443/path?token=1",
        "https://a.example.org/x",
        "https://a.b.example.org/x",
        "http://intern:8000/x",
        "https://10.1.2.3/x",
        "http://127.0.0.1:9000/x",
        "https://[fd00::1]:8443/",
    ],
)
def test_listed_hosts_are_allowed(url: str) -> None:
    POLICY.check(url, "default")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.com/", "does not allow"),
        ("https://example.org/", "does not allow"),
        ("https://evilexample.org/", "does not allow"),
        ("https://hooks.example.com.evil.net/", "does not allow"),
        ("https://hooks.example.com:8443/", "does not allow"),
        ("http://hooks.example.com/", "does not allow"),
        ("https://intern:8000/", "does not allow"),
        ("http://10.1.2.3/", "does not allow"),
        ("https://10.2.0.1/", "does not allow"),
        ("http://127.0.0.1/", "does not allow"),
        ("http://127.1:9000/", "does not allow"),
        ("http://2130706433:9000/", "does not allow"),
        ("http://[::ffff:127.0.0.1]:9000/", "does not allow"),
        ("https://user:secret@hooks.example.com/", "user or a password"),
        ("https://hooks.example.com@evil.net/", "user or a password"),
        ("https://hooks.example.com\\@evil.net/", "must"),
        ("ftp://hooks.example.com/", "must be a URL"),
        ("//hooks.example.com/", "must be a URL"),
        ("hooks.example.com", "must be a URL"),
        ("https://", "must be a URL"),
        ("https://hooks.example.com:99999/", "must be a URL"),
        ("https://a..example.org/", "must be a URL"),
        (f"https://{'a' * 64}.example.org/", "must be a URL"),
        ("", "1 to 2048"),
        ("https://hooks.example.com/\n", "1 to 2048"),
        ("https://hooks.example.com/ä", "1 to 2048"),
        ("https://hooks.example.com/" + "x" * 2048, "1 to 2048"),
    ],
)
def test_other_urls_are_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        POLICY.check(url, "default")
    assert refused.value.field == "webhook_url"
    assert "secret" not in str(refused.value)


def test_without_hosts_or_without_a_secret_webhooks_are_disabled() -> None:
    with pytest.raises(InvalidRequest, match="PYEXEC_WEBHOOK_HOSTS"):
        WebhookPolicy(default_secrets=[SECRET]).check("https://hooks.example.com", "default")
    unsigned = WebhookPolicy(hosts=POLICY.hosts, secrets={"acme": [SECRET]})
    unsigned.check("https://hooks.example.com", "acme")
    with pytest.raises(InvalidRequest, match="PYEXEC_WEBHOOK_SECRETS"):
        unsigned.check("https://hooks.example.com", "default")


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("93.184.215.14", 443, True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", 443, True),
        ("10.1.2.3", 8000, True),
        ("10.2.0.1", 443, False),
        ("127.0.0.1", 9000, True),
        ("127.0.0.1", 443, False),
        ("127.0.0.2", 9000, False),
        ("169.254.169.254", 80, False),
        ("100.64.0.1", 443, False),
        ("100.100.100.200", 80, False),
        ("168.63.129.16", 80, False),
        ("64:ff9b::168.63.129.16", 80, False),
        ("2002:a83f:8110::1", 80, False),
        ("0.0.0.0", 443, False),
        ("224.0.0.1", 443, False),
        ("192.168.1.1", 443, False),
        ("::1", 443, False),
        ("::", 443, False),
        ("::ffff:127.0.0.1", 443, False),
        ("::ffff:10.2.0.1", 443, False),
        ("64:ff9b::a9fe:a9fe", 443, False),
        ("2002:7f00:1::", 443, False),
        ("64:ff9b:1::7f00:1", 443, False),
        ("fec0::1", 443, False),
        ("::127.0.0.1", 443, False),
        ("::ffff:0:127.0.0.1", 443, False),
        ("5f00::1", 443, False),
        ("fe80::1%eth0", 443, False),
        ("fd00::1", 8443, True),
        ("fd00::2", 8443, False),
    ],
)
def test_only_public_and_listed_addresses_are_allowed(address: str, port: int, allowed: bool) -> None:
    assert POLICY.allows_address(address, port) is allowed


WRONG_HOSTS = (
    "*",
    "*example.com",
    "a.*.com",
    "a b",
    "ftp://a",
    "a:0",
    "a:65536",
    "10.0.0.1/8",
    "a/x",
    "[::1",
    "a:b",
)


@pytest.mark.parametrize("item", WRONG_HOSTS)
def test_a_wrong_host_is_a_settings_error(item: str) -> None:
    with pytest.raises(SettingsError, match="PYEXEC_WEBHOOK_HOSTS contains"):
        read_settings({"PYEXEC_WEBHOOK_HOSTS": item})


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_AAAA", SECRET_TEXT[6:], f"{SECRET_TEXT}!", "whsec_" + "A" * 128]
)
def test_a_wrong_secret_is_a_settings_error_that_does_not_contain_it(secret: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({"PYEXEC_WEBHOOK_SECRETS": f"{SECRET_TEXT},{secret}"})
    assert "PYEXEC_WEBHOOK_SECRETS has a wrong secret at position 2" in str(refused.value)
    with pytest.raises(SettingsError) as refused:
        parse_tenants(f'[acme]\ntokens = ["a"]\nwebhook_secrets = ["{secret}"]\n', "tenants.toml")
    assert "line 3: acme.webhook_secrets has a wrong secret at position 1" in str(refused.value)
    for part in (secret.removeprefix("whsec_"), SECRET_TEXT):
        assert not part or part not in str(refused.value)


def test_the_signature_is_that_of_the_specification() -> None:
    """The secret, the message and the signature are those of the reference libraries' tests."""
    secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, [secret, SECRET])
    first, second = headers["webhook-signature"].split(" ")
    assert first == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert second.startswith("v1,")
    assert second != first
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
    )


def test_a_tenant_has_its_own_secrets_or_those_of_the_server() -> None:
    settings = read_settings({"PYEXEC_WEBHOOK_HOSTS": "a", "PYEXEC_WEBHOOK_SECRETS": SECRET_TEXT})
    own = b"another secret of the tenant"
    text = f'[acme]\ntokens = ["a"]\nwebhook_secrets = ["whsec_{base64.b64encode(own).decode()}"]\n'
    policy = webhook_policy(settings, parse_tenants(text, "tenants.toml", ["b"]))
    assert (list(policy.secrets_of("acme")), list(policy.secrets_of("default"))) == ([own], [SECRET])
    assert list(policy.secrets_of("removed")) == [SECRET]
    assert own.decode() not in repr(policy) + repr(Tenants((Tenant(name="a", webhook_secrets=(own,)),)))


def test_a_suffix_allows_no_port_but_the_usual_one() -> None:
    host = AllowedHost.parse("*.example.org")
    assert host.allows(URL("https://a.example.org"))
    assert not host.allows(URL("https://a.example.org:8443"))
