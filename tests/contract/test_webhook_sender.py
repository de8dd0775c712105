"""Test that no URL ends the delivery of webhooks: an earlier version may have accepted one that cannot be reached."""

import pytest

from pyexec.adapters.webhooks import HttpWebhooks
from pyexec.domain.webhook_schedule import Outcome
from pyexec.domain.webhooks import AllowedHost, WebhookPolicy

POLICY = WebhookPolicy(hosts=[AllowedHost.parse("*.example.org")], default_secrets=[b"x" * 32])


@pytest.mark.parametrize("host", ["a..example.org", f"{'a' * 64}.example.org", "127.0.0.1"])
async def test_a_host_that_cannot_be_reached_is_an_attempt_that_failed(host: str) -> None:
    sender = HttpWebhooks(POLICY)
    try:
        attempt = await sender.send(f"https://{host}/", {}, b"{}")
    finally:
        await sender.close()
    assert attempt.outcome is Outcome.UNREACHABLE
    assert attempt.reason
