"""Tenants: groups of callers that share a server. Each API token belongs to one tenant."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from attrs import field, frozen

DEFAULT_TENANT = "default"
"""The tenant of the tokens in PYEXEC_API_TOKENS, and of every caller if no tokens are configured."""
OTHER_TENANTS = "other"
"""The metrics label of executions whose tenant is no longer configured."""


@frozen(kw_only=True)
class Tenant:
    """A tenant and what it may use on each replica.

    `weight` is its share of the starts while several tenants wait. `max_running` limits its running programs,
    `max_setups` its running setups, and `max_queued` its executions that wait; None means that only the limits of the
    server apply. `max_sessions` limits its open sessions on all replicas together. `webhook_secrets` sign its webhooks,
    newest first; without them, the secrets of the server do."""

    name: str
    weight: int = 1
    max_running: int | None = None
    max_queued: int | None = None
    webhook_secrets: tuple[bytes, ...] = field(default=(), repr=False)
    max_sessions: int | None = None
    max_setups: int | None = None


@frozen
class TokenDigest:
    """The SHA-256 of a token, and the name of the tenant to which the token belongs."""

    digest: bytes
    tenant: str


@frozen
class Tenants:
    """All configured tenants, and the digests of their tokens."""

    configured: Sequence[Tenant] = (Tenant(name=DEFAULT_TENANT),)
    tokens: Sequence[TokenDigest] = field(default=(), repr=False)
    _by_name: Mapping[str, Tenant] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {tenant.name: tenant for tenant in self.configured})

    @classmethod
    def with_tokens(cls, tokens: Iterable[str]) -> Self:
        """Return the tenant `default` alone, with these tokens."""
        return cls(tokens=tuple(TokenDigest(digest_of(token), DEFAULT_TENANT) for token in tokens))

    @property
    def requires_token(self) -> bool:
        """True if requests need a token."""
        return bool(self.tokens)

    @property
    def names(self) -> Sequence[str]:
        """The names of all configured tenants."""
        return tuple(self._by_name)

    def is_operator(self, name: str) -> bool:
        """Return True if the tenant may see the whole deployment: there is no other, or its tokens are those of the
        server's own setting PYEXEC_API_TOKENS."""
        return len(self._by_name) == 1 or name == DEFAULT_TENANT

    def get(self, name: str) -> Tenant:
        """Return the tenant; one with default values if it is no longer configured."""
        return self._by_name.get(name) or Tenant(name=name)

    def weight_of(self, name: str) -> int:
        """Return the tenant's weight."""
        return self.get(name).weight

    def label(self, name: str) -> str:
        """Return the tenant's label in metrics. The labels are a fixed set, whatever the event log contains."""
        return name if name in self._by_name else OTHER_TENANTS

    def authenticate(self, token: str) -> str | None:
        """Return the tenant of a token, or None if the token is wrong.

        Every digest is compared, so the time does not depend on which token matches, or on how much of it."""
        given = digest_of(token)
        matches = [known.tenant for known in self.tokens if hmac.compare_digest(known.digest, given)]
        return matches[0] if matches else None


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of a token. Bytes of a header that are not UTF-8 arrive as surrogates."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
