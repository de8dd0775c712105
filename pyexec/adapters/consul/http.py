"""The way to Consul's HTTP API: few connections, kept open, where python-consul2 would open one for each call."""

import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from attrs import frozen
from yarl import URL

from pyexec.adapters.consul.clock import ClockCheck
from pyexec.errors import Unavailable
from pyexec.metrics import CONSUL_ERRORS, CONSUL_REQUESTS, NOOP_METER, Meter

CALL_CONNECTIONS: Final = 12
WATCH_CONNECTIONS: Final = 8
"""Blocking queries have connections of their own, so that they never keep a call waiting."""
CONNECT_SECONDS: Final = 3.0
CALL_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 20
WATCH_GRACE_SECONDS: Final = 10.0
"""Consul adds up to a sixteenth of its own, and the answer takes its time."""

Parameters = Sequence[tuple[str, object]]
Callback = Callable[["Response"], Any]


class Unanswered(Unavailable):
    """Consul was asked and did not answer: whether it has done what was asked is unknown."""


@frozen
class Response:
    """An answer, as python-consul2's callbacks want it."""

    code: int
    headers: Mapping[str, str]
    body: str
    content: bytes


class PooledHTTP:
    """What python-consul2 calls its HTTP client. `sent` counts requests by method and endpoint.

    Raises `Unanswered` when there is no answer, `Unavailable` when nothing was sent, or what answers is not
    Consul."""

    def __init__(self, address: URL, tls: ssl.SSLContext | None, meter: Meter = NOOP_METER) -> None:
        self.address = address
        self.sent: Counter[str] = Counter()
        self._meter = meter
        self.clock = ClockCheck()
        self._calls = self._session(CALL_CONNECTIONS, CALL_SECONDS, tls)
        self._watches = self._session(WATCH_CONNECTIONS, WATCH_SECONDS + WATCH_GRACE_SECONDS, tls)

    @staticmethod
    def _session(connections: int, seconds: float, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=tls or True),
            timeout=aiohttp.ClientTimeout(total=seconds, connect=seconds, sock_connect=CONNECT_SECONDS),
        )

    async def close(self) -> None:
        await self._calls.close()
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
        session = self._watches if "index" in query else self._calls
        endpoint = path.split("/")[2]
        self.sent[f"{method} {endpoint}"] += 1
        self._meter.count(CONSUL_REQUESTS, method, endpoint)
        url = self.address.with_path(path).with_query(query)
        body = data.encode() if isinstance(data, str) else data
        try:
            async with session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientConnectorError as error:
            self._meter.count(CONSUL_ERRORS, "unreachable")
            raise Unavailable(f"Consul at {self.address} cannot be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            self._meter.count(CONSUL_ERRORS, "unanswered")
            raise Unanswered(f"Consul at {self.address} does not answer: {error or 'timed out'}") from error
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._meter.count(CONSUL_ERRORS, "server_error")
        self._check_is_consul(method, path, answer)
        self.clock.compare(self.address, answer.headers)
        return callback(Response(answer.status, answer.headers, content.decode("utf-8", "replace"), content))

    def _check_is_consul(self, method: str, path: str, answer: aiohttp.ClientResponse) -> None:
        """python-consul2 takes any 404 for "no such key", and for done where it has put something."""
        expected = "X-Consul-Index" in answer.headers or path.startswith("/v1/session/renew/")
        if answer.status == HTTPStatus.NOT_FOUND and not (expected and method in ("GET", "PUT")):
            raise Unavailable(f"what answers at {self.address} is not Consul: {method} {path} is 404 there")
