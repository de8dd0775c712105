"""Send webhooks over HTTP, only to addresses that the operator allows."""

import errno
import math
import socket
import ssl
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from anyio import CapacityLimiter, to_thread
from yarl import URL

from pyexec import __version__
from pyexec.domain.webhook_schedule import Attempt, Outcome, outcome_of_status
from pyexec.domain.webhooks import WebhookPolicy, receiver_of
from pyexec.errors import shorten

TOTAL_SECONDS = 20.0
"""How long a receiver may take to answer. Standard Webhooks recommends 15 to 30 seconds."""
CONNECT_SECONDS = 10.0
RECEIVE_BYTES = 4096
"""Of a receiver that answers 100 Continue without end, the event loop parses only so much in one step."""
HEADERS = {"Content-Type": "application/json", "User-Agent": f"python-executor/{__version__}"}

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


class HttpWebhooks:
    """`ports.WebhookSender` by aiohttp. Close it.

    Each request opens a connection of its own. Its address is checked when its socket is created, after the name was
    resolved, so a name that changes its address cannot evade the check."""

    def __init__(self, policy: WebhookPolicy) -> None:
        self._policy = policy
        connector = aiohttp.TCPConnector(
            socket_factory=self._open_socket,
            force_close=True,
            use_dns_cache=False,
            limit=0,
            resolver=_Resolver(),
        )
        timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
        self._http = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), headers=HEADERS
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Send the request. The body of the response is not read."""
        try:
            response = await self._http.post(
                _request_url(url), headers=headers, data=body, allow_redirects=False
            )
        except TimeoutError:
            return Attempt(
                outcome=Outcome.UNREACHABLE, reason=f"the receiver did not answer within {TOTAL_SECONDS:g} s"
            )
        except aiohttp.ClientConnectorCertificateError as error:
            return Attempt(outcome=Outcome.UNREACHABLE, reason=_certificate_problem(error.certificate_error))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # also a name that cannot be encoded
            return Attempt(outcome=Outcome.UNREACHABLE, reason=_reason(error))
        response.close()
        return Attempt(
            outcome=outcome_of_status(response.status),
            reason=f"the receiver answered {response.status}",
            retry_after=_seconds(response.headers.get("Retry-After", "")),
        )

    def _open_socket(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._policy.allows_address(address[0], address[1]):
            reason = f"{address[0]} is not a public address; to allow it, add it to PYEXEC_WEBHOOK_HOSTS"
            raise PermissionError(errno.EACCES, reason)
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return found


class _Resolver(AbstractResolver):
    """Looks up each name in a thread of its own.

    The event loop has four threads for all lookups. A few names whose name servers do not answer would occupy them."""

    def __init__(self) -> None:
        self._threads = CapacityLimiter(math.inf)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return await to_thread.run_sync(
            _look_up, host, port, family, limiter=self._threads, abandon_on_cancel=True
        )

    async def close(self) -> None:
        """Do nothing: threads end with their lookups."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """Return the addresses of a host. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0],
            port=port,
            family=each,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for each, _, protocol, _, address in found
    ]


def _request_url(text: str) -> URL:
    """Return the URL of a request: the receiver as it was checked, the path and the query as the caller wrote them.

    `URL` would decode `%2F` in a query, and resolve `..` in a path, but the receiver may compare or sign the text."""
    return URL(receiver_of(text) + URL(text, encoded=True).raw_path_qs, encoded=True)


def _reason(error: Exception) -> str:
    """Return the text of an error without the URL, whose path may be secret."""
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return shorten(" ".join(text.split())) or type(error).__name__


def _certificate_problem(error: Exception) -> str:
    problem = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    return f"the certificate of the receiver is not accepted: {problem}"


def _seconds(retry_after: str) -> float | None:
    """Return the seconds for which a receiver asks. A date is ignored: it would compare two clocks."""
    return float(retry_after) if retry_after.isdecimal() and len(retry_after) < 10 else None
