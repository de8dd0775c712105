"""Live output from the other replicas, over their HTTP API."""

import base64
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

import aiohttp
import anyio
import anyio.lowlevel
import cattrs

from pyexec.domain.cluster import ClusterView
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import Stream
from pyexec.errors import Unavailable
from pyexec.ports import REPLICA_HEADER, Caller, Member, Membership
from pyexec_client.sse import Message, Parser

SILENCE_SECONDS = 45.0
"""Three times the interval of the keep-alive comments in an event stream."""
RESPONSE_SECONDS = 5.0
"""How long a peer may take to start a response, or to complete one that is not followed.

A suspended process accepts connections, but never responds."""

REPORT_SECONDS = 2.0
"""How long a peer may take to report its state."""
_VIEWS = cattrs.Converter()
"""Ignores fields that only a later version knows."""

OUTPUT_EVENTS = ("output", "setup", "display")
BODY_BYTES = 32 * 1024


class HttpPeers:
    """`ports.Peers` by the addresses that the members advertise."""

    def __init__(self, membership: Membership, replica: str) -> None:
        self._membership = membership
        self._replica = replica
        timeout = aiohttp.ClientTimeout(total=None, connect=5.0, sock_read=SILENCE_SECONDS)
        self._http = aiohttp.ClientSession(timeout=timeout)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def report(self, member: Member, caller: Caller) -> ClusterView:
        if member.address is None:
            raise Unavailable(f"{member.replica} has no address")
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
        url = f"{await self._address(execution)}/api/v1/executions/{execution.id}/events"
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

    async def _address(self, execution: Execution) -> str:
        members = (await self._membership.members()).members
        owner = members.get(execution.owner or "")
        if owner is None or owner.address is None:
            raise Unavailable(
                f"{execution.id} runs on {execution.owner}, which cannot be reached from this replica"
            )
        return owner.address.rstrip("/")


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
