"""Test how a replica finds out whether the process of another one exists."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from attrs import evolve

from pyexec.adapters import peers as peers_module
from pyexec.adapters.peers import HttpPeers
from pyexec.ports import REPLICA_HEADER, Liveness, Member
from tests.support.consul import free_ports
from tests.web.in_process import running_web
from tests.web.replica_pair import KnownMembers

OWNER = Member(replica="rep_owner", engine="e", address=None, slots=1, version="1")


async def probe(address: str | None, replica: str = "rep_owner", own: str = "rep_other") -> Liveness:
    peers = HttpPeers(KnownMembers(), own)  # type: ignore[arg-type]  only `members` is used
    try:
        return await peers.probe(evolve(OWNER, address=address, replica=replica))
    finally:
        await peers.close()


async def test_a_server_answers_a_probe_with_its_name(tmp_path: Path) -> None:
    """A replica that reaches itself at the address of another one knows nothing of that one."""
    async with running_web(tmp_path, replica="rep_owner") as web:
        assert await probe(web.url) is Liveness.ANSWERS
        assert await probe(f"{web.url}/") is Liveness.ANSWERS
        assert await probe(web.url, replica="rep_before") is Liveness.GONE
        assert await probe(web.url, replica="rep_before", own="rep_owner") is Liveness.UNKNOWN
        async with aiohttp.request("GET", f"{web.url}/health") as response:
            assert (await response.json(), REPLICA_HEADER in response.headers) == ({"status": "ok"}, False)


async def test_a_server_that_has_no_name_yet_is_not_taken_for_another_replica(tmp_path: Path) -> None:
    async with running_web(tmp_path) as web:
        assert await probe(web.url) is Liveness.UNKNOWN


async def test_only_an_address_on_which_no_process_listens_shows_that_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A suspended process accepts connections, because the kernel does it."""
    monkeypatch.setattr(peers_module, "PROBE_TIMEOUT_SECONDS", 0.2)
    (port,) = free_ports(["one"]).values()
    address = f"http://127.0.0.1:{port}"
    assert await probe(address) is Liveness.GONE
    assert await probe(None) is Liveness.UNKNOWN
    assert await probe("http://unknown.invalid:80") is Liveness.UNKNOWN

    ended = asyncio.Event()

    async def suspended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_server(suspended, "127.0.0.1", port):
        assert await probe(address) is Liveness.UNKNOWN
        await ended.wait()
