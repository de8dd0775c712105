"""Parse and write network addresses: a host and a port, or a URL."""

from collections.abc import Collection
from urllib.parse import urlsplit


def join_host_port(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(address: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`. Raises `ValueError`."""
    parts = urlsplit(f"//{address}")
    if parts.hostname is None or parts.port is None or parts.netloc != address or parts.username is not None:
        raise ValueError(address)
    return parts.hostname, parts.port


def port_of(url: str) -> int | None:
    """Return the port of a URL; None if it has none or is malformed."""
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def is_url(text: str, schemes: Collection[str]) -> bool:
    """Return True if `text` is a URL with one of these schemes, a host, and a valid port if it names one."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
