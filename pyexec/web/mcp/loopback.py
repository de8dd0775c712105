"""Send requests of tools to this server's own HTTP API, which forwards them to the owner of a session."""

import json

import aiohttp
from aiohttp import hdrs, web
from attrs import frozen
from yarl import URL

from pyexec.mcp.executor import tool_error


@frozen
class LoopbackHttp:
    """Sends requests to the address at which `request` has arrived, with its token."""

    _request: web.Request

    async def send(
        self, method: str, path: str, *, body: bytes | None = None, kind: str | None = None, bytes_max: int
    ) -> bytes | None:
        headers = {hdrs.CONTENT_TYPE: kind} if kind else {}
        if hdrs.AUTHORIZATION in self._request.headers:
            headers[hdrs.AUTHORIZATION] = self._request.headers[hdrs.AUTHORIZATION]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.request(method, self._url(path), data=body, headers=headers) as response,
            ):
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > bytes_max:
                        return None
        except (aiohttp.ClientError, OSError) as error:
            raise tool_error(
                f"the server cannot reach its own HTTP API: {error}", code="unavailable"
            ) from error
        if response.status >= 400:
            raise _error_of(bytes(answer))
        return bytes(answer)

    def _url(self, path: str) -> URL:
        transport = self._request.transport
        if transport is None:
            raise tool_error("the client has disconnected", code="unavailable")
        host, port = transport.get_extra_info("sockname")[:2]
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return URL(f"http://{authority}{path}", encoded=True)


def _error_of(body: bytes) -> Exception:
    """Return the error of the API that the body describes."""
    try:
        details = json.loads(body)
        return tool_error(details["error"], code=details.get("code", "error"), field=details.get("field"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return tool_error(f"the server answered {body[:200]!r}", code="internal")
