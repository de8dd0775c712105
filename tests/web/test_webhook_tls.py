"""Test webhooks over TLS: which certificates are accepted, and which address is connected to."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyexec.adapters.webhooks import HttpWebhooks
from pyexec.domain.webhook_schedule import Outcome
from pyexec.domain.webhooks import AllowedHost, WebhookPolicy
from tests.support.api import Api, api_of
from tests.support.consul import free_ports, make_certificates
from tests.support.metrics import until_figures
from tests.support.server import Server, running_server
from tests.support.webhooks import SECRET, SECRET_TEXT, running_receiver

PORTS = free_ports(["tls", "plain"])
PORT = PORTS["tls"]
OTHER_ADDRESS = "127.0.0.2"
"""It is not in the certificates, which are for `localhost` and 127.0.0.1."""
HOSTS = f"localhost:{PORT},127.0.0.1:{PORT},{OTHER_ADDRESS}:{PORT},http://127.0.0.1:{PORTS['plain']}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a private authority, which the server trusts, with a certificate."""
    directory = tmp_path_factory.mktemp("authority") / "made"
    make_certificates(directory)
    return directory


def context_of(authority: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority / "dc1-server-consul-0.pem", authority / "dc1-server-consul-0-key.pem")
    return tls


@pytest.fixture(scope="module")
def hooked(authority: Path, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"webhook_hosts": HOSTS, "webhook_secrets": SECRET_TEXT}
    trusted = authority / "consul-agent-ca.pem"
    with running_server(
        tmp_path_factory.mktemp("hooked") / "data", image, authorities=trusted, **settings
    ) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture
async def api(hooked: Server) -> AsyncIterator[Api]:
    async with api_of(hooked.url) as client:
        yield client


async def fail_once(server: Server, api: Api, url: str) -> tuple[str, str]:
    """Run a program with this webhook. Wait until the delivery has failed; return the execution and its log line."""
    execution_id = await api.accepted("print(1)", webhook_url=url)
    about = f"webhook of {execution_id} to {url.rpartition('/')[0]} failed; retrying"

    def lines() -> list[str]:
        return [line for line in server.log.read_text().splitlines() if about in line]

    await until_figures(api.url, lambda _: bool(lines()))
    return execution_id, lines()[0]


async def test_a_certificate_of_a_private_authority_is_accepted(api: Api, authority: Path) -> None:
    async with running_receiver(PORT, tls=context_of(authority)) as receiver:
        execution_id = await api.accepted("print(1)", webhook_url=f"https://localhost:{PORT}/done")
        (got,) = await receiver.until_received(execution_id)
    assert got.is_signed_by(SECRET)
    assert got.document["data"]["status"] == "completed"


async def test_a_delivery_waits_until_the_certificate_is_trusted(
    hooked: Server, api: Api, authority: Path, tmp_path: Path
) -> None:
    make_certificates(tmp_path / "unknown")
    url = f"https://localhost:{PORT}/secret-path"
    async with running_receiver(PORT, tls=context_of(tmp_path / "unknown")) as receiver:
        execution_id, line = await fail_once(hooked, api, url)
        assert receiver.received == []
    assert "the certificate of the receiver is not accepted: unable to get local issuer certificate" in line
    assert "secret-path" not in hooked.log.read_text()
    async with running_receiver(PORT, tls=context_of(authority)) as receiver:
        (got,) = await receiver.until_received(execution_id)
    assert got.is_signed_by(SECRET)


async def test_a_certificate_for_another_name_is_refused(hooked: Server, api: Api, authority: Path) -> None:
    async with running_receiver(PORT, OTHER_ADDRESS, context_of(authority)) as receiver:
        _, line = await fail_once(hooked, api, f"https://{OTHER_ADDRESS}:{PORT}/")
        assert receiver.received == []
    assert f"certificate is not valid for '{OTHER_ADDRESS}'" in line


async def test_a_redirect_to_http_is_not_followed(api: Api, authority: Path) -> None:
    async with (
        running_receiver(PORT, tls=context_of(authority)) as receiver,
        running_receiver(PORTS["plain"]) as plain,
    ):
        receiver.answers, receiver.location = [302], f"http://{plain.host}/"
        execution_id = await api.accepted("print(1)", webhook_url=f"https://127.0.0.1:{PORT}/")
        await receiver.until_received(execution_id, 2)
        assert plain.received == []


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `rebound.example` have another address each time it is resolved; record the addresses."""
    answers, given = iter(["127.0.0.1", OTHER_ADDRESS, "127.0.0.1"]), list[str]()
    resolve = socket.getaddrinfo

    def rebinding(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "rebound.example":
            host = next(answers)
            given.append(host)
        return resolve(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    return given


async def test_a_name_is_resolved_once_for_the_check_and_the_connection(resolved: list[str]) -> None:
    async with running_receiver() as listed, running_receiver(listed.port, OTHER_ADDRESS) as unlisted:
        hosts = [f"http://rebound.example:{listed.port}", f"http://127.0.0.1:{listed.port}"]
        sender = HttpWebhooks(WebhookPolicy(hosts=[AllowedHost.parse(host) for host in hosts]))
        try:
            url = f"http://rebound.example:{listed.port}/"
            sent, refused, again = [await sender.send(url, {}, b"{}") for _ in range(3)]
        finally:
            await sender.close()
    assert resolved == ["127.0.0.1", OTHER_ADDRESS, "127.0.0.1"]
    assert [attempt.outcome for attempt in (sent, refused, again)] == [
        Outcome.DELIVERED,
        Outcome.UNREACHABLE,
        Outcome.DELIVERED,
    ]
    assert f"{OTHER_ADDRESS} is not a public address" in refused.reason
    assert (len(listed.received), unlisted.received) == (2, [])
