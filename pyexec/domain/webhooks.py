"""Webhooks: which URLs and addresses the operator allows, and the signature of a delivery (docs/design/webhooks.md)."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

from attrs import field, frozen
from yarl import URL

from pyexec.errors import InvalidRequest, quote

FIELD = "webhook_url"
URL_LENGTH_MAX = 2048
SECRET_PREFIX = "whsec_"  # noqa: S105 only the prefix of a secret
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
"""The sizes of a signing secret that Standard Webhooks allows."""
HOST_FORM = (
    "host names such as hooks.example.com or *.example.com, and addresses or networks such as 10.0.0.0/8; "
    "each with http:// before it to allow http, and :PORT after it for another port than the usual one"
)
SECRET_FORM = (
    f"{SECRET_PREFIX} and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, "
    f"such as $(printf {SECRET_PREFIX}; openssl rand -base64 32)"
)
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_PLAIN_URL = re.compile(r"[!-~]+")
_LABEL_LENGTH_MAX = 63
"""The limit of DNS. Python cannot look up a name with a longer or an empty label."""
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The only IPv6 addresses that IANA assigns to hosts of the internet. Other prefixes can lead to private networks."""
_PORTS = {"https": 443, "http": 80}
_NAT64 = IPv6Network("64:ff9b::/96")
_METADATA = IPv4Address("168.63.129.16")
"""Azure's metadata service, at an address of the internet. Those of other clouds are private or link-local."""

Address = IPv4Address | IPv6Address


@frozen
class AllowedHost:
    """One item of the operator's list: a host name, a suffix of names, or a network; and the scheme and the port.

    Without a port, a URL must have the usual port of the scheme. But a name may resolve to an address in the network
    with any port."""

    pattern: str
    scheme: str
    port: int | None

    @classmethod
    def parse(cls, item: str) -> Self:
        """Parse an item of PYEXEC_WEBHOOK_HOSTS. Raises `ValueError`."""
        scheme, separator, rest = item.lower().rpartition("://")
        scheme = scheme if separator else "https"
        if scheme not in _PORTS:
            raise ValueError(item)
        if _network(rest) is not None:
            return cls(rest, scheme, None)
        found = _HOST_AND_PORT.fullmatch(rest)
        if found is None:
            raise ValueError(item)
        host = found["v6"] or found["name"]
        port = None if found["port"] is None else int(found["port"])
        is_host = _network(host) is not None or _NAME.fullmatch(host) is not None
        if not is_host or (port is not None and not 0 < port < 65536):
            raise ValueError(item)
        return cls(host, scheme, port)

    def allows(self, url: URL) -> bool:
        """Return True if a delivery may be sent to this URL."""
        port = self.port or _PORTS[self.scheme]
        return (url.scheme, url.port) == (self.scheme, port) and self._names((url.raw_host or "").lower())

    def contains(self, address: Address, port: int) -> bool:
        """Return True if this is a network that contains the address, for this port."""
        network = _network(self.pattern)
        if network is None or self.port not in (None, port):
            return False
        return address.version == network.version and address in network

    def _names(self, host: str) -> bool:
        if (address := _address(host)) is not None:
            return self.contains(address, self.port or 0)
        if self.pattern.startswith("*."):
            return host.endswith(self.pattern[1:]) and len(host) >= len(self.pattern)
        return host == self.pattern


@frozen(kw_only=True)
class WebhookPolicy:
    """The hosts to which the operator allows deliveries, and the signing secrets of each tenant, newest first.

    `default_secrets` sign the deliveries of tenants without secrets of their own."""

    hosts: Sequence[AllowedHost] = ()
    secrets: Mapping[str, Sequence[bytes]] = field(factory=dict, repr=False)
    default_secrets: Sequence[bytes] = field(default=(), repr=False)

    def secrets_of(self, tenant: str) -> Sequence[bytes]:
        """Return the secrets that sign the deliveries of a tenant."""
        return self.secrets.get(tenant) or self.default_secrets

    def check(self, text: str, tenant: str) -> None:
        """Raise `InvalidRequest` if no delivery of this tenant may be sent to the URL."""
        if not self.hosts:
            raise _refused("webhooks are disabled on this server; its operator can set PYEXEC_WEBHOOK_HOSTS")
        url = parse_url(text)
        if not any(host.allows(url) for host in self.hosts):
            raise _refused(
                f"{FIELD} leads to {quote(receiver_of(text))}, which this server does not allow; its operator can "
                "add the host to PYEXEC_WEBHOOK_HOSTS"
            )
        if not self.secrets_of(tenant):
            raise _refused(
                "webhooks are disabled for this tenant: it has no signing secret; the operator can set "
                "PYEXEC_WEBHOOK_SECRETS, or webhook_secrets in PYEXEC_TENANTS_FILE"
            )

    def allows_address(self, text: str, port: int) -> bool:
        """Return True if a connection may be opened to this address: a public one, or one that is listed."""
        address = ip_address(text.partition("%")[0])
        if any(host.contains(address, port) for host in self.hosts):
            return True
        inner = _embedded(address)
        if isinstance(inner, IPv6Address) and inner not in _GLOBAL_UNICAST:
            return False
        return inner.is_global and not inner.is_multicast and inner != _METADATA


def parse_url(text: str) -> URL:
    """Parse a webhook URL. Raises `InvalidRequest` if no request could be sent to it."""
    if not text or len(text) > URL_LENGTH_MAX or _PLAIN_URL.fullmatch(text) is None:
        raise _refused(f"{FIELD} must have 1 to {URL_LENGTH_MAX} ASCII characters without space")
    try:
        url = URL(text)
        has_host = url.scheme in _PORTS and bool(url.raw_host) and url.port is not None
    except ValueError:
        has_host = False
    if not has_host or "\\" in text or not _is_host(url.raw_host or ""):
        raise _refused(f"{FIELD} must be a URL such as https://hooks.example.com/path, not {quote(text)}")
    if url.raw_user is not None or url.raw_password is not None:
        raise _refused(f"{FIELD} must not contain a user or a password")
    return url


def _is_host(host: str) -> bool:
    """Return True for an address, and for a name that can be looked up."""
    labels = host.removesuffix(".").split(".")
    return _address(host) is not None or all(0 < len(label) <= _LABEL_LENGTH_MAX for label in labels)


def receiver_of(text: str) -> str:
    """Return the scheme, host and port of a webhook URL: the server that receives its deliveries."""
    return str(URL(text).origin())


def parse_secret(text: str) -> bytes:
    """Return the bytes of a signing secret. Raises `ValueError` without the secret in its text."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ValueError("not a signing secret")
    return secret


def signed_headers(
    execution_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]
) -> Mapping[str, str]:
    """Return the headers of Standard Webhooks, with one signature for each secret."""
    signed = f"{execution_id}.{timestamp}.".encode() + body
    digests = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets]
    return {
        "webhook-id": execution_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, field=FIELD)


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for; any other address is returned unchanged."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
