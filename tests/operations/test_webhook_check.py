"""Test what `--check` says about the settings of webhooks."""

from pathlib import Path
from typing import Any

import pytest

from pyexec.preflight.host import check_webhooks
from pyexec.settings import Settings
from tests.support.webhooks import SECRET_TEXT

HOSTS = ("hooks.example.com",)


@pytest.mark.parametrize(
    ("settings", "verdict", "said"),
    [
        ({}, None, ""),
        ({"webhook_hosts": HOSTS}, "failed", "set PYEXEC_WEBHOOK_SECRETS"),
        ({"webhook_secrets": (SECRET_TEXT,)}, "warning", "set PYEXEC_WEBHOOK_HOSTS"),
        ({"webhook_hosts": HOSTS, "webhook_secrets": (SECRET_TEXT,)}, "ok", "hooks.example.com"),
    ],
)
def test_hosts_need_secrets(settings: dict[str, Any], verdict: str | None, said: str) -> None:
    found = list(check_webhooks(Settings(**settings)))
    assert [result.verdict for result in found] == ([verdict] if verdict else [])
    assert all(said in result.text and SECRET_TEXT not in result.text for result in found)


def test_tenants_without_a_secret_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(f'[a]\ntokens = ["1"]\nwebhook_secrets = ["{SECRET_TEXT}"]\n[b]\ntokens = ["2"]\n')
    (result,) = check_webhooks(Settings(webhook_hosts=HOSTS, tenants_file=file))
    assert (result.verdict, "without a secret: b" in result.text) == ("warning", True)
