"""Test that no URL ends the delivery of webhooks: an earlier version may have accepted one that cannot be reached."""

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from pyexec.adapters.webhooks import HttpWebhooks
from pyexec.domain.webhook_schedule import Outcome
from pyexec.domain.webhooks import AllowedHost, WebhookPolicy

POLICY = WebhookPolicy(hosts=[AllowedHost.parse("*.example.org")], default_secrets=[b"x" * 32])


@pytest.mark.parametrize("host", ["a..example.org", f"{'a' * 64}.example.org", "127.0.0.1"])
async def test_a_host_that_cannot_be_reached_is_an_attempt_that_failed(host: str) -> None:
    sender = HttpWebhooks(POLICY)
    try:
        attempt = await sender.send(f"https://{host}/", {}, b"{}")
    finally:
        await sender.close()
    assert attempt.outcome is Outcome.UNREACHABLE
    assert attempt.reason


@asynccontextmanager
async def answering(data: bytes, requests: list[bytes] | None = None) -> AsyncIterator[int]:
    """Send these bytes to each connection, and keep the beginning of its request. Yield the port."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            received = await stream.receive()
            if requests is not None:
                requests.append(received)
            await stream.send(data)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\xff" * 500,
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 9000,
        b"HTTP/1.1 200 OK\r\nX\xff: y\r\n\r\n",
    ],
)
async def test_the_reason_of_a_failure_has_no_path_and_is_short(data: bytes) -> None:
    """The path of a URL may be secret, and the reason is logged."""
    async with answering(data) as port:
        sender = HttpWebhooks(WebhookPolicy(hosts=[AllowedHost.parse(f"http://127.0.0.1:{port}")]))
        try:
            attempt = await sender.send(f"http://127.0.0.1:{port}/a-secret?token=b-secret", {}, b"{}")
        finally:
            await sender.close()
    assert attempt.outcome is Outcome.UNREACHABLE
    assert "secret" not in attempt.reason
    assert "\n" not in attempt.reason
    assert 0 < len(attempt.reason) < 200


@pytest.mark.parametrize("target", ["/a/%2e%2e/b/../c?to=https%3A%2F%2Fx&sign=%41", "/~%7E//x?q=[1]&r", "/"])
async def test_path_and_query_are_sent_as_they_are_written(target: str) -> None:
    """A receiver may compare the text, or verify a signature in it."""
    requests: list[bytes] = []
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", requests) as port:
        sender = HttpWebhooks(WebhookPolicy(hosts=[AllowedHost.parse(f"http://127.0.0.1:{port}")]))
        try:
            await sender.send(f"HTTP://127.0.0.1:{port}{target}#part", {}, b"{}")
        finally:
            await sender.close()
    assert requests[0].startswith(f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())


async def test_names_whose_name_servers_are_silent_delay_no_other_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event loop has few threads for lookups, which all tenants and all other connections share."""
    look_up, answer = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if str(host).startswith("silent"):
            answer.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as port:
        hosts = (f"http://*.example.org:{port}", f"http://127.0.0.1:{port}")
        sender = HttpWebhooks(WebhookPolicy(hosts=[AllowedHost.parse(host) for host in hosts]))
        try:
            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(sender.send, f"http://silent{number}.example.org:{port}/", {}, b"{}")
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(10):
                    attempt = await sender.send(f"http://fine.example.org:{port}/", {}, b"{}")
                answer.set()
        finally:
            answer.set()
            await sender.close()
    assert attempt.outcome is Outcome.DELIVERED
