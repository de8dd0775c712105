"""The interface to the receivers of webhooks."""

from collections.abc import Mapping
from typing import Protocol

from pyexec.domain.webhook_schedule import Attempt


class WebhookSender(Protocol):
    """Sends webhooks. It connects only to addresses that the operator allows, and follows no redirect."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Send one request, and return its outcome within a bounded time, whatever the receiver does."""
