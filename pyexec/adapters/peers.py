"""Requests to the other replicas, over their HTTP API: for live output, and requests of callers."""

import base64
import errno
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
import anyio
import anyio.lowlevel
import cattrs
from yarl import URL

from pyexec.domain.cluster import ClusterView
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import Stream
from pyexec.errors import Unavailable
from pyexec.ports import REPLICA_HEADER, Caller, Liveness, Member, Membership, PeerRequest, PeerResponse
from pyexec_client.sse import Message, Parser

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 45.0
"""Three times the interval of the keep-alive comments in an event stream."""
RESPONSE_SECONDS = 5.0
"""How long a peer may take to start a response, or to complete one that is not followed.

A suspended process accepts connections, but never responds."""

PROBE_TIMEOUT_SECONDS = 5.0
"""How long a peer may take to answer a probe. The kernel needs 3 s to find out that no machine has an address."""
NOT_LISTENING = (errno.ECONNREFUSED, errno.EHOSTUNREACH)
"""The errors of a connection if no process listens, or if the container that had the address is gone."""
REPORT_SECONDS = 2.0
"""How long a peer may take to report its state."""
_VIEWS = cattrs.Converter()
"""Ignores fields that only a later version knows."""

CONNECT_SECONDS = 5.0
MEMBER_CHECK_SECONDS = 5.0
"""How often the membership is read while a peer handles a request, which can take hours: a suspended process keeps its
connections, but not its membership."""
FORWARDED = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
OUTPUT_EVENTS = ("output", "setup", "display")
BODY_BYTES = 32 * 1024


class HttpPeers:
    """`ports.Peers` by the addresses that the members advertise."""

    def __init__(self, membership: Membership, replica: str) -> None:
        self._membership = membership
        self._replica = replica
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        # Without a limit of connections: each can be in use for hours, and the peers limit what they accept.
        self._http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def probe(self, member: Member) -> Liveness:
        if member.address is None:
            return Liveness.UNKNOWN
        url = f"{member.address.rstrip('/')}/health"
        try:
            with anyio.fail_after(PROBE_TIMEOUT_SECONDS):
                async with self._http.get(url, headers=self._headers(Caller())) as response:
                    answering = response.headers.get(REPLICA_HEADER, "")
        except aiohttp.ClientConnectorError as error:
            return Liveness.GONE if error.errno in NOT_LISTENING else Liveness.UNKNOWN
        except (aiohttp.ClientError, TimeoutError):
            return Liveness.UNKNOWN
        if answering == member.replica:
            return Liveness.ANSWERS
        is_other = answering not in ("", self._replica)  # an address such as 127.0.0.1 may lead back here
        return Liveness.GONE if is_other else Liveness.UNKNOWN

    async def report(self, member: Member, caller: Caller) -> ClusterView:
        if member.address is None:
            raise Unavailable(f"{member.replica} advertises no address")
        url = f"{member.address.rstrip('/')}/api/v1/cluster"
        try:
            with anyio.fail_after(REPORT_SECONDS):
                async with self._http.get(url, headers=self._headers(caller)) as response:
                    if response.status != HTTPStatus.OK:
                        raise Unavailable(f"{member.replica} answered {response.status} to {url}")
                    return _VIEWS.structure(await response.json(), ClusterView)
        except (aiohttp.ClientError, TimeoutError, ValueError, cattrs.BaseValidationError) as error:
            raise Unavailable(f"{member.replica} failed to report its state: {error!r}") from error

    def _headers(self, caller: Caller) -> dict[str, str]:
        token = {} if caller.token is None else {"Authorization": f"Bearer {caller.token}"}
        return {REPLICA_HEADER: self._replica, **token}

    async def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        url = f"{await self._address(execution.owner, execution.id)}/api/v1/executions/{execution.id}/events"
        headers = {**self._headers(caller), "Last-Event-ID": f"{execution.seq}.{offset}"}
        try:
            with anyio.fail_after(RESPONSE_SECONDS):
                response = await self._http.get(url, headers=headers, params={"follow": str(int(follow))})
            async with response:
                if response.status != HTTPStatus.OK:
                    raise Unavailable(
                        f"{execution.owner} answered {response.status} to a request for {execution.id}"
                    )
                parser = Parser()
                async for data in response.content.iter_any() if follow else _whole_body(response):
                    for message in parser.feed(data):
                        if message.event not in OUTPUT_EVENTS:
                            return  # the execution has another event
                        yield _decode(message)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            raise Unavailable(
                f"{execution.owner} failed to send the output of {execution.id}: {error}"
            ) from error

    @asynccontextmanager
    async def forward(self, replica: str, request: PeerRequest) -> AsyncIterator[PeerResponse]:
        url = URL(
            await self._address(replica, f"{request.method} {request.path}") + request.path, encoded=True
        )
        failure: Exception | None = None
        is_gone = False

        async def cancel_when_gone() -> None:
            nonlocal is_gone
            await self._wait_until_gone(replica)
            is_gone = True
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_when_gone, name=f"membership of {replica}")
            try:
                async with self._send(replica, url, request) as response:
                    yield response
            except Exception as error:  # noqa: BLE001  raised below, outside of the task group's exception group
                failure = error
            tasks.cancel_scope.cancel()
        if is_gone:
            raise Unavailable(f"{replica} stopped responding while it handled the request")
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def _send(self, replica: str, url: URL, request: PeerRequest) -> AsyncIterator[PeerResponse]:
        try:
            response = await self._http.request(
                request.method,
                url,
                headers=[*request.headers, (REPLICA_HEADER, self._replica)],
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
                data=request.body,
                allow_redirects=False,
                auto_decompress=False,
                timeout=FORWARDED,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{replica} did not answer: {error}") from error
        async with response:
            yield PeerResponse(
                status=response.status, headers=response.headers, chunks=_chunks(replica, response)
            )

    async def _wait_until_gone(self, replica: str) -> None:
        """Return once the replica is no longer a member."""
        while True:
            await anyio.sleep(MEMBER_CHECK_SECONDS)
            try:
                if replica not in (await self._membership.members()).members:
                    return
            except Unavailable as error:
                logger.debug("cannot read the members while %s handles a request: %s", replica, error)

    async def _address(self, replica: str | None, subject: str) -> str:
        owner = (await self._membership.members()).members.get(replica or "")
        if owner is None or owner.address is None:
            raise Unavailable(f"{subject} needs {replica}, which is not a member or advertises no address")
        return owner.address.rstrip("/")


async def _chunks(replica: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except aiohttp.ClientError as error:
        raise Unavailable(f"the connection to {replica} broke during its response: {error}") from error


async def _whole_body(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with anyio.fail_after(RESPONSE_SECONDS):
        body = await response.read()
    for at in range(0, len(body), BODY_BYTES):
        yield body[at : at + BODY_BYTES]
        await anyio.lowlevel.checkpoint()  # many small events do not delay other tasks


def _decode(message: Message) -> tuple[Stream, bytes]:
    if message.event == Stream.DISPLAY:
        return Stream.DISPLAY, message.data.encode()
    document = json.loads(message.data)
    stream = Stream(document.get("stream", Stream.SETUP))
    return stream, base64.b64decode(document["data"], validate=True)
