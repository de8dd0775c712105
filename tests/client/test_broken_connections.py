"""Test retries and resuming with an HTTP server that fails on purpose."""

import gc
import io
import json
import socket
import traceback
import tracemalloc
from contextlib import aclosing
from functools import partial

import anyio
import pytest
from aiohttp import web

from pyexec_client import (
    AsyncClient,
    ConnectionFailed,
    Ended,
    InvalidAnswer,
    InvalidRequest,
    Output,
    QueueFull,
    Retry,
    ServerError,
    Unavailable,
)
from tests.client.flawed_server import FlawedServer, events, hang_up, status
from tests.support.canned import canned

SOON = Retry(attempts=3, first=0.01)

SUBMITTED = b'id: 1.0\nevent: submitted\ndata: {"execution_id": "exe_1", "seq": 1, "type": "submitted"}\n\n'
FIRST = b'id: 2.1\nevent: output\ndata: {"stream": "stdout", "data": "YQ=="}\n\n'
SECOND = b'id: 2.2\nevent: output\ndata: {"stream": "stdout", "data": "Yg=="}\n\n'
FINISHED = (
    b'id: 3.2\nevent: finished\ndata: {"execution_id": "exe_1", "status": "completed", "exit_code": 0}\n\n'
)


@pytest.fixture
async def flawed(aiohttp_server):
    flawed = FlawedServer()
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", flawed.handle)
    server = await aiohttp_server(app)
    flawed.url = str(server.make_url("/"))
    return flawed


@pytest.fixture
async def client(flawed):
    async with AsyncClient(flawed.url, retry=SOON, resume=SOON) as client:
        yield client


@pytest.mark.parametrize("cut", [True, False])
async def test_a_broken_stream_resumes_after_the_last_event(flawed, client, cut):
    flawed.behaviours = [events(SUBMITTED, FIRST, SECOND[:20], cut=cut), events(SECOND, FINISHED)]
    seen = []
    result = await client.run("print('ab')", on_event=seen.append)
    assert [event.data for event in seen if isinstance(event, Output)] == [b"a", b"b"]
    assert result.ok
    method, path, headers = flawed.requests[1]
    assert (method, path) == ("GET", "/api/v1/executions/exe_1/events")
    assert headers["Last-Event-ID"] == "2.1"


async def test_a_stream_resumes_while_the_server_restarts(flawed, client):
    flawed.behaviours = [events(SUBMITTED, FIRST), hang_up, status(503), events(SECOND), events(FINISHED)]
    async with aclosing(client.events("exe_1", after="0.0")) as stream:
        seen = [event async for event in stream]
    assert isinstance(seen[-1], Ended)
    assert flawed.headers("Last-Event-ID") == ["0.0", "2.1", "2.1", "2.1", "2.2"]


async def test_resuming_gives_up_after_some_attempts(flawed, client):
    flawed.behaviours = [events(SUBMITTED, cut=True), *20 * [hang_up]]
    with pytest.raises(ConnectionFailed):
        await client.run("print(1)")
    # aiohttp itself retries a GET once if a reused connection was closed.
    assert SOON.attempts < len(flawed.requests) <= 1 + 2 * SOON.attempts


async def test_a_stream_that_breaks_before_the_id_is_known_is_not_retried(flawed, client):
    flawed.behaviours = [events(b": keep-alive\n\n", cut=True)]
    with pytest.raises(ConnectionFailed):
        await client.run("print(1)")
    assert len(flawed.requests) == 1


async def test_reads_are_retried(flawed, client):
    flawed.behaviours = [hang_up, status(503), status(200, {"execution_id": "exe_1", "status": "running"})]
    assert (await client.get("exe_1")).status == "running"


async def test_wait_uses_long_polling(flawed, client):
    answer = {"execution_id": "exe_1", "status": "running"}
    flawed.behaviours = [status(200, answer), hang_up, status(200, answer | {"status": "killed"})]
    assert (await client.wait("exe_1")).status == "killed"
    assert {path for _, path, _ in flawed.requests} == {"/api/v1/executions/exe_1?wait=60"}


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_a_wait_that_times_out_says_what_it_knows(flawed, client, seconds):
    flawed.behaviours = [status(200, {"execution_id": "exe_1", "status": "running"})] * 1000
    with pytest.raises(TimeoutError) as raised:
        await client.wait("exe_1", seconds)
    for words in ("exe_1", f"after {seconds:g} s", "status: running", "call wait again", "kill"):
        assert words in str(raised.value)


async def test_a_wait_ends_if_the_server_does_not_answer(flawed, client, monkeypatch):
    async def silent(_request: web.Request) -> web.Response:
        await anyio.sleep(60)
        return web.Response()

    monkeypatch.setattr("pyexec_client.client._ANSWER_SECONDS", 0.05)
    flawed.behaviours = [silent]
    with pytest.raises(TimeoutError, match=r"exe_1 has not ended after 0.01 s \(status: unknown"):
        await client.wait("exe_1", 0.01)


async def test_a_submission_is_retried_with_the_same_key_and_bytes(flawed, client):
    flawed.behaviours = [hang_up, status(503), status(202, {"execution_id": "exe_1"})]
    assert await client.submit({"main.py": "print(1)"}) == "exe_1"
    keys = flawed.headers("Idempotency-Key")
    assert keys[0]
    assert keys == 3 * keys[:1]
    archives = {body.split(b"application/x-tar", 1)[1].split(b"\r\n--")[0] for body in flawed.bodies}
    assert len(archives) == 1


async def test_each_submission_has_another_key(flawed, client):
    flawed.behaviours = 2 * [status(202, {"execution_id": "exe_1"})]
    await client.submit("print(1)")
    await client.submit("print(1)")
    assert len(set(flawed.headers("Idempotency-Key"))) == 2


async def test_a_run_without_a_key_is_not_retried(flawed, client):
    flawed.behaviours = [status(503)]
    with pytest.raises(Unavailable):
        await client.run("print(1)")
    flawed.behaviours = [status(503), events(SUBMITTED, FINISHED)]
    assert (await client.run("print(1)", idempotency_key="mine")).ok


async def test_a_tar_stream_is_not_retried(flawed, client):
    async def tar():
        yield bytes(1024)

    flawed.behaviours = [status(503)]
    with pytest.raises(Unavailable):
        await client.submit(tar())


async def test_rejected_requests_are_not_retried(flawed, client):
    flawed.behaviours = [
        status(400, {"error": "too much", "code": "over_ceiling", "field": "config.memory_mb"})
    ]
    with pytest.raises(InvalidRequest) as caught:
        await client.submit("print(1)", memory_mb=10**9)
    assert (caught.value.code, caught.value.field) == ("over_ceiling", "config.memory_mb")
    assert json.loads(caught.value.body)["error"] == "too much"


async def test_a_full_queue_is_retried_unless_the_wait_is_too_long(flawed, client):
    flawed.behaviours = [status(429, **{"Retry-After": "0"}), status(202, {"execution_id": "exe_1"})]
    assert await client.submit("print(1)") == "exe_1"
    flawed.behaviours = [status(429, **{"Retry-After": "3600"})]
    with pytest.raises(QueueFull) as caught:
        await client.submit("print(1)")
    assert caught.value.retry_after == 3600


async def test_a_redirect_is_not_followed(flawed, client):
    flawed.behaviours = [status(302, Location="/elsewhere")]
    with pytest.raises(Exception, match="no") as caught:
        await client.get("exe_1")
    assert caught.value.status == 302


async def test_responses_of_another_server_are_an_error(flawed, client):
    async def page(_request):
        return web.Response(text="<html>welcome</html>")

    flawed.behaviours = [page]
    with pytest.raises(InvalidAnswer, match="welcome"):
        await client.get("exe_1")
    flawed.behaviours = [status(202, {"id": "exe_1"})]
    with pytest.raises(InvalidAnswer, match="execution_id"):
        await client.submit("print(1)")


async def test_the_token_is_sent(flawed):
    flawed.behaviours = [status(200, {"execution_id": "exe_1", "status": "killed"})]
    async with AsyncClient(flawed.url, token="secret") as client:
        await client.get("exe_1")
    assert flawed.headers("Authorization") == ["Bearer secret"]


async def test_pages_are_fetched_only_when_needed(flawed, client):
    entry = {"execution_id": "exe_1", "status": "completed"}
    flawed.behaviours = [
        status(200, {"executions": [entry, entry], "next_cursor": "c"}),
        status(200, {"executions": [entry, entry], "next_cursor": "d"}),
    ]
    assert len([result async for result in client.list(status="completed", limit=3, session_id="ses_1")]) == 3
    paths = [path.split("?")[1] for _, path, _ in flawed.requests]
    assert paths == [
        "limit=3&status=completed&session_id=ses_1",
        "limit=1&status=completed&cursor=c&session_id=ses_1",
    ]


async def test_an_error_of_the_source_is_raised_unchanged(flawed, client, tmp_path):
    (tmp_path / "main.py").write_text("print(1)")
    (tmp_path / ".dockerignore").write_text("!")
    flawed.behaviours = [status(200)]
    with pytest.raises(ValueError, match=r"\.dockerignore"):
        await client.run(tmp_path)


async def failing_stream():
    yield b"a"
    raise LookupError("of the caller")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (io.StringIO("print(1)"), ValueError),
        ({"main.py": io.StringIO("print(1)")}, ValueError),
        (failing_stream(), LookupError),
    ],
)
async def test_a_source_that_fails_is_no_lost_connection(flawed, client, source, error):
    flawed.behaviours = [status(200)]
    with pytest.raises(error, match=r"binary mode|of the caller"):
        await client.run(source)


async def test_a_large_upload_takes_constant_memory(aiohttp_server, tmp_path):
    received = 0

    async def swallow(request: web.Request) -> web.Response:
        nonlocal received
        async for chunk in request.content.iter_any():
            received += len(chunk)
        return web.json_response({"execution_id": "exe_1"}, status=202)

    app = web.Application()
    app.router.add_post("/api/v1/exec/async", swallow)
    server = await aiohttp_server(app)
    size = 300 * 1024 * 1024
    with (tmp_path / "main.py").open("wb") as file:
        file.truncate(size)
    async with AsyncClient(str(server.make_url("/"))) as client:
        tracemalloc.start()
        try:
            await client.submit(tmp_path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert received > size
    assert peak < 16 * 1024 * 1024


async def test_server_unreachable():
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:1: connection refused") as caught:
            await client.run("print(1)")
    printed = "".join(traceback.format_exception(caught.value))
    assert (printed.count("Traceback"), "aiohttp" in printed) == (1, False)


async def test_a_server_without_tls():
    with canned(lambda _: None) as url:
        async with AsyncClient(url.replace("http:", "https:")) as client:
            with pytest.raises(
                ConnectionFailed, match=r"TLS failed \(.+\); if the server has no TLS, use http://"
            ):
                await client.run("print(1)")


@pytest.mark.parametrize("address", ["localhost:8080", "", "ftp://x", "http://"])
def test_an_invalid_url_is_rejected(address):
    with pytest.raises(ValueError, match="http://host:8080"):
        AsyncClient(address)


@pytest.mark.parametrize("execution_id", ["", "..", "exe_1/events", "exe_1?x", "é"])
async def test_an_invalid_execution_id_is_rejected(client, execution_id):
    with pytest.raises(ValueError, match="invalid execution ID"):
        await client.get(execution_id)


async def test_no_events_after_the_last_one(flawed, client):
    flawed.behaviours = [status(204)]
    assert [event async for event in client.events("exe_1", after="3.2")] == []


async def test_no_events_after_a_lost_connection_are_an_error(flawed, client):
    """The Go client has the same message."""
    flawed.behaviours = [events(SUBMITTED, FIRST, cut=True), status(204)]
    with pytest.raises(
        InvalidAnswer, match=r"^the server sent no more events, but the execution has not ended$"
    ):
        await client.run("print(1)")
    assert flawed.headers("Last-Event-ID") == [None, "2.1"]


async def test_a_response_that_is_no_event_stream_is_an_error(flawed, client):
    flawed.behaviours = [status(200, {"message": "log in"})]
    with pytest.raises(InvalidAnswer, match="'application/json' instead of an event stream"):
        await client.run("print(1)")


async def test_reads_whose_body_is_cut_are_retried(flawed, client):
    flawed.behaviours = [cut_json, status(200, {"execution_id": "exe_1", "status": "running"})]
    assert (await client.get("exe_1")).status == "running"


async def test_a_submission_whose_answer_is_cut_is_repeated_with_its_key(flawed, client):
    flawed.behaviours = [cut_json, status(202, {"execution_id": "exe_1"})]
    assert await client.submit("print(1)") == "exe_1"
    first, second = flawed.headers("Idempotency-Key")
    assert first == second is not None


async def test_wait_pauses_if_the_server_does_not(flawed, client):
    flawed.behaviours = [status(200, {"execution_id": "exe_1", "status": "running"})] * 1000
    with pytest.raises(TimeoutError):
        await client.wait("exe_1", 0.1)
    assert len(flawed.requests) == 1


async def test_a_list_that_repeats_its_cursor_ends(flawed, client):
    flawed.behaviours = [status(200, {"executions": [], "next_cursor": "x"})] * 3
    with pytest.raises(InvalidAnswer, match="next_cursor repeats"):
        [result async for result in client.list()]
    assert len(flawed.requests) == 2


async def test_an_endless_error_body_is_read_up_to_a_bound(flawed, client):
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    flawed.behaviours = [endless]
    with pytest.raises(ServerError) as raised:
        await client.get("exe_1")
    assert len(raised.value.body) == 1024 * 1024


async def test_a_slow_error_body_is_read_up_to_a_deadline(flawed, client, monkeypatch):
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        await response.write(b"so far")
        await anyio.sleep(60)
        return response

    monkeypatch.setattr("pyexec_client.transport._ERROR_SECONDS", 0.05)
    flawed.behaviours = [slow]
    with pytest.raises(ServerError, match="HTTP 500: so far"):
        await client.get("exe_1")


async def test_json_that_is_nested_deeply_is_an_error(flawed, client):
    async def deep(_request: web.Request) -> web.Response:
        return web.Response(body=b"[" * 100_000)

    flawed.behaviours = [deep]
    with pytest.raises(InvalidAnswer):
        await client.get("exe_1")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_works_in_one_event_loop_after_another():
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"execution_id": "exe_1", "status": "running"})

    async def get(client: AsyncClient, *, is_last: bool) -> str:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            return (await client.get("exe_1")).status
        finally:
            if is_last:
                await client.close()
            await runner.cleanup()

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = AsyncClient(f"http://127.0.0.1:{port}")
    for is_last in (False, True):
        assert anyio.run(partial(get, client, is_last=is_last)) == "running"
    gc.collect()  # of the first loop's connection


async def cut_json(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"execution_id"')
    return await hang_up(request)
