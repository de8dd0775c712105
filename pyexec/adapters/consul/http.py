"""HTTP connections to Consul. They are pooled, because python-consul2 would open one for each request."""

import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import inf
from typing import Any, Final

import aiohttp
from attrs import define, frozen
from yarl import URL

from pyexec.errors import Unavailable
from pyexec.metrics import CONSUL_ERRORS, CONSUL_REQUESTS, NOOP_METER, Meter

logger = logging.getLogger(__name__)

REQUEST_CONNECTIONS: Final = 12
WATCH_CONNECTIONS: Final = 8
"""Blocking queries have their own pool, so that other requests never wait for them."""
CONNECT_SECONDS: Final = 3.0
REQUEST_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 20
WATCH_GRACE_SECONDS: Final = 10.0
"""Consul adds up to 1/16 to the time of a blocking query; the rest is for the response to arrive."""

SKEW_SECONDS_MAX: Final = 5.0
"""Consul's clock is known to the second only, and a response may be on its way for some seconds."""
CLOCK_CHECK_SECONDS: Final = 30.0

Parameters = Sequence[tuple[str, object]]
Callback = Callable[["Response"], Any]


class OutcomeUnknown(Unavailable):
    """A request was sent and not answered. It may have taken effect."""


@frozen
class Response:
    """A response, in the form that the callbacks of python-consul2 expect."""

    code: int
    headers: Mapping[str, str]
    body: str
    content: bytes


@define
class ClockSkewCheck:
    """Compares the clock of this machine with Consul's, and logs when a difference begins and when it ends.

    With a wrong clock, callers see wrong times, and ended executions are deleted too early or too late. Nothing else
    depends on clocks."""

    skew_seconds: float = 0.0
    """How far this machine's clock was ahead of Consul's at the last check."""
    _next_check_at: float = -inf
    _skewed: bool = False

    def check(self, address: object, headers: Mapping[str, str]) -> None:
        """Compare the clocks, if it is time for it. `headers` are those of a response that has just arrived."""
        if time.monotonic() < self._next_check_at or "Date" not in headers:
            return
        self._next_check_at = time.monotonic() + CLOCK_CHECK_SECONDS
        try:
            consul_time = parsedate_to_datetime(headers["Date"]).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return  # rewritten by a proxy
        self.skew_seconds = skew = time.time() - consul_time
        skewed = abs(skew) > SKEW_SECONDS_MAX
        if skewed and not self._skewed:
            logger.error(
                "this machine's clock is %.0f s %s that of Consul at %s: times that callers see are wrong, and ended "
                "executions are kept for longer or shorter than PYEXEC_CLEANUP_TTL",
                abs(skew),
                "ahead of" if skew > 0 else "behind",
                address,
            )
        elif self._skewed and not skewed:
            logger.info("this machine's clock agrees with that of Consul at %s again", address)
        self._skewed = skewed


class PooledHTTP:
    """The HTTP client of python-consul2. `request_counts` counts requests by method and endpoint.

    Raises `OutcomeUnknown` if a request is not answered, and `Unavailable` if it could not be sent or if the
    server is not Consul."""

    def __init__(self, address: URL, tls: ssl.SSLContext | None, meter: Meter = NOOP_METER) -> None:
        self.address = address
        self.request_counts: Counter[str] = Counter()
        self.clock = ClockSkewCheck()
        self._meter = meter
        self._requests = self._session(REQUEST_CONNECTIONS, REQUEST_SECONDS, tls)
        self._watches = self._session(WATCH_CONNECTIONS, WATCH_SECONDS + WATCH_GRACE_SECONDS, tls)

    @staticmethod
    def _session(connections: int, seconds: float, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=tls or True),
            timeout=aiohttp.ClientTimeout(total=seconds, connect=seconds, sock_connect=CONNECT_SECONDS),
        )

    async def close(self) -> None:
        await self._requests.close()
        await self._watches.close()

    async def get(
        self,
        callback: Callback,
        path: str,
        params: Parameters = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._request(callback, "GET", path, params, headers)

    async def put(
        self,
        callback: Callback,
        path: str,
        params: Parameters = (),
        headers: Mapping[str, str] | None = None,
        data: str | bytes = "",
    ) -> Any:
        return await self._request(callback, "PUT", path, params, headers, data)

    async def delete(
        self,
        callback: Callback,
        path: str,
        params: Parameters = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._request(callback, "DELETE", path, params, headers)

    async def _request(
        self,
        callback: Callback,
        method: str,
        path: str,
        params: Parameters,
        headers: Mapping[str, str] | None,
        data: str | bytes | None = None,
    ) -> Any:
        query = {name: str(value) for name, value in params}
        session = self._watches if "index" in query else self._requests
        endpoint = path.split("/")[2]
        self.request_counts[f"{method} {endpoint}"] += 1
        self._meter.count(CONSUL_REQUESTS, method, endpoint)
        url = self.address.with_path(path).with_query(query)
        body = data.encode() if isinstance(data, str) else data
        try:
            async with session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                content = await response.read()
        except aiohttp.ClientConnectorError as error:
            self._meter.count(CONSUL_ERRORS, "unreachable")
            text = str(error).replace(" ssl:default", "")  # aiohttp says so about every connection
            raise Unavailable(f"Consul at {self.address} cannot be reached: {text}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            self._meter.count(CONSUL_ERRORS, "unanswered")
            reason = str(error) or "timed out"
            raise OutcomeUnknown(f"Consul at {self.address} does not answer: {reason}") from error
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._meter.count(CONSUL_ERRORS, "server_error")
        self._check_is_consul(method, path, response)
        self.clock.check(self.address, response.headers)
        text = content.decode("utf-8", "replace")
        return callback(Response(response.status, response.headers, text, content))

    def _check_is_consul(self, method: str, path: str, response: aiohttp.ClientResponse) -> None:
        """Reject a 404 of another server. python-consul2 would treat it as a missing key, or even as success."""
        expected = "X-Consul-Index" in response.headers or path.startswith("/v1/session/renew/")
        if response.status == HTTPStatus.NOT_FOUND and not (expected and method in ("GET", "PUT")):
            raise Unavailable(
                f"the server at {self.address} is not Consul: {method} {path} is not found there"
            )
