"""The other replicas over their own HTTP API."""

import base64
import json
from collections.abc import AsyncIterator, Mapping

import aiohttp
import anyio

from pyexec.domain.execution import Execution
from pyexec.domain.output_log import Stream
from pyexec.errors import Unavailable
from pyexec.ports import REPLICA_HEADER, Caller, Membership
from pyexec_client.sse import Parser

SILENCE_SECONDS = 45.0
"""Three times what passes between two signs of life of an event stream."""
ANSWER_SECONDS = 5.0
"""How long a peer may take to begin its answer, or to say what there is by now: it may hold still, and be no member
much longer."""


class NoPeers:
    """`ports.Peers` of a server that stands alone."""

    async def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        about = f"offset {offset}, follow {follow}, a replica asks: {caller.is_replica}"
        raise Unavailable(f"{execution.id} runs on {execution.owner}, which is gone ({about})")
        yield


class HttpPeers:
    """`ports.Peers` by the addresses that the members advertise."""

    def __init__(self, membership: Membership, replica: str) -> None:
        self._membership = membership
        self._replica = replica
        timeout = aiohttp.ClientTimeout(total=None, connect=5.0, sock_read=SILENCE_SECONDS)
        self._http = aiohttp.ClientSession(timeout=timeout)

    async def close(self) -> None:
        """Ends all connections."""
        await self._http.close()

    async def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        url = f"{await self._address(execution)}/api/v1/executions/{execution.id}/events"
        headers = {REPLICA_HEADER: self._replica, "Last-Event-ID": f"{execution.seq}.{offset}"}
        if caller.token is not None:
            headers["Authorization"] = f"Bearer {caller.token}"
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                answer = await self._http.get(url, headers=headers, params={"follow": str(int(follow))})
            async with answer:
                if answer.status != 200:
                    raise Unavailable(f"{execution.owner} answers {answer.status} for {execution.id}")
                parser = Parser()
                async for data in answer.content.iter_any() if follow else _all_in_time(answer):
                    for message in parser.feed(data):
                        if message.event not in ("output", "setup"):
                            return  # the log has news
                        yield _output(json.loads(message.data))
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            raise Unavailable(
                f"{execution.owner} does not say what {execution.id} prints: {error}"
            ) from error

    async def _address(self, execution: Execution) -> str:
        members = (await self._membership.members()).members
        owner = members.get(execution.owner or "")
        if owner is None or owner.address is None:
            raise Unavailable(f"{execution.id} runs on {execution.owner}, which cannot be reached from here")
        return owner.address.rstrip("/")


async def _all_in_time(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with anyio.fail_after(ANSWER_SECONDS):
        body = await answer.read()
    yield body


def _output(document: Mapping[str, str]) -> tuple[Stream, bytes]:
    stream = Stream(document.get("stream", Stream.SETUP))
    return stream, base64.b64decode(document["data"], validate=True)
