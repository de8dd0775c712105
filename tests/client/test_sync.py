"""Test the synchronous client with a real server."""

import inspect
import itertools
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from pyexec_client import (
    AsyncClient,
    Client,
    ClientClosed,
    ConnectionFailed,
    Ended,
    InvalidRequest,
    Lifecycle,
    NotFound,
    Output,
    Status,
)

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def methods(kind: type) -> dict[str, inspect.Signature]:
    public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    return {name: inspect.signature(value) for name, value in public.items()}


def test_methods_and_arguments_match_the_asynchronous_client():
    sync_methods, async_methods = methods(Client), methods(AsyncClient)
    assert sync_methods.keys() == async_methods.keys()
    for name, signature in sync_methods.items():
        assert list(signature.parameters) == list(async_methods[name].parameters), name
    assert inspect.signature(Client).parameters == inspect.signature(AsyncClient).parameters


def test_run(client):
    seen = []
    result = client.run("print('here')", on_event=lambda event: seen.append((event, threading.get_ident())))
    assert (result.ok, result.stdout) == (True, "here\n")
    assert {thread for _, thread in seen} == {threading.get_ident()}
    kinds = [type(event) for event, _ in seen]
    assert kinds[0] is Lifecycle
    assert kinds[-2:] == [Output, Ended]


def test_submit_wait_get_list_logs_and_events(client):
    execution_id = client.submit({"main.py": "print('out')"}, timeout=60)
    result = client.wait(execution_id)
    assert result.ok
    assert client.get(execution_id) == result
    assert client.timeline(execution_id).id == execution_id
    assert client.cluster().replicas[0].ready
    assert execution_id in [entry.execution_id for entry in client.list(limit=500)]
    assert b"".join(client.logs(execution_id, stream="stdout")) == b"out\n"
    assert isinstance(list(client.events(execution_id))[-1], Ended)
    assert client.eval("6 * 7").result == "42"


def test_wait_times_out_and_kill_returns_the_status(client):
    execution_id = client.submit(SLEEPER)
    with pytest.raises(TimeoutError):
        client.wait(execution_id, timeout=0.1)
    assert client.kill(execution_id) is Status.KILLED


def test_a_callback_may_use_the_client_and_raise(client):
    def stop(event):
        seen.append(event)
        if not isinstance(event, Output):
            return
        assert client.get(seen[0].execution_id).status is Status.RUNNING
        raise RuntimeError("enough")

    seen = []
    with pytest.raises(RuntimeError, match="enough"):
        client.run(SLEEPER, on_event=stop)


def test_closing_a_stream_early_kills_the_execution(client):
    stream = client.stream(SLEEPER)
    execution_id = next(event.execution_id for event in stream if isinstance(event, Lifecycle))
    assert any(isinstance(event, Output) for event in stream)
    stream.close()
    assert client.wait(execution_id, timeout=60).status is Status.KILLED


def test_map(client):
    results = dict(client.map((f"print({number})" for number in range(6)), concurrency=3))
    assert {place: result.stdout for place, result in results.items()} == {
        place: f"{place}\n" for place in range(6)
    }


def test_errors_are_the_same(client, tmp_path):
    with pytest.raises(NotFound):
        client.get("exe_" + 32 * "0")
    with pytest.raises(FileNotFoundError):
        client.run(tmp_path / "missing.py")
    with pytest.raises(ValueError, match="http://"):
        Client("localhost")
    with Client("http://127.0.0.1:1") as nowhere, pytest.raises(ConnectionFailed):
        list(nowhere.list())


def test_threads_share_a_client(client):
    outputs = {}
    threads = [
        threading.Thread(target=lambda n=n: outputs.update({n: client.run(f"print({n})").stdout}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {n: f"{n}\n" for n in range(4)}


@pytest.mark.parametrize("is_used", [False, True])
def test_a_closed_client_refuses_every_call(server, is_used):
    with Client(server.url) as client:
        if is_used:
            assert client.eval("1").result == "1"
    client.close()
    for call in (partial(client.eval, "2"), lambda: next(client.events("exe_1")), client.__enter__):
        with pytest.raises(ClientClosed, match=r"^the client is closed; create another one$"):
            call()


async def test_a_closed_asynchronous_client_refuses_every_call(server):
    async with AsyncClient(server.url) as client:
        assert (await client.eval("1")).result == "1"
    await client.close()
    for call in (partial(client.eval, "2"), lambda: anext(client.events("exe_1")), client.__aenter__):
        with pytest.raises(ClientClosed, match=r"^the client is closed; create another one$"):
            await call()


def test_close_is_optional(server):
    program = f"from pyexec_client import Client\nprint(Client({server.url!r}).eval('3').result)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "3\n"


def test_closing_the_client_ends_the_calls_of_other_threads(server):
    client, errors = Client(server.url), []

    def call(program):
        try:
            program()
        except ClientClosed as error:
            errors.append(str(error))

    threads = [
        threading.Thread(target=call, args=[program])
        for program in (lambda: client.run(SLEEPER), lambda: client.eval(SLEEPER))
    ]
    for thread in threads:
        thread.start()
    while sum(1 for _ in client.list(status="running")) < 2:
        time.sleep(0.05)
    client.close()
    for thread in threads:
        thread.join(10)
    assert errors == 2 * ["the client was closed during the call"]


def test_a_stream_ends_when_its_client_is_closed(client):
    stream = client.stream(SLEEPER)
    next(stream)
    client.close()
    with pytest.raises(ClientClosed, match="the client was closed"):
        list(stream)


def test_a_client_works_after_a_fork(server):
    program = f"""
import os, signal
from pyexec_client import Client
with Client({server.url!r}) as client:
    client.eval("1")
    if (pid := os.fork()) == 0:
        signal.alarm(30)
        print(client.eval("2").result, flush=True)
        client.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(client.eval("3").result)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "2\n3\n"


def test_a_forked_process_that_ends_leaves_the_connections_of_its_parent_alone(server):
    """At its end, Python collects the objects in the child, too."""
    program = f"""
import os, signal, sys
from pyexec_client import Client
client = Client({server.url!r})
client.eval("1")
if (pid := os.fork()) == 0:
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
signal.alarm(30)
print(client.eval("2").result)
client.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


async def test_map_yields_results_as_runs_end_and_reads_sources_lazily(server):
    taken = []

    def sources():
        for number in itertools.count():
            taken.append(number)
            yield f"import time\ntime.sleep({600 if number == 0 else 0})\nprint({number})"

    async with AsyncClient(server.url) as client:
        results = client.map(sources(), concurrency=2)
        places = [(await anext(results))[0] for _ in range(3)]
        await results.aclose()
    assert 0 not in places
    assert len(taken) <= 8


async def test_map_raises_the_first_error_and_kills_the_other_runs(server):
    async with AsyncClient(server.url) as client:
        with pytest.raises(InvalidRequest):
            async for _ in client.map([SLEEPER, {"readme.txt": "no code"}], concurrency=2):
                pass
        with pytest.raises(ValueError, match="concurrency"):
            client.map([], concurrency=0)
        assert [result async for result in client.map([])] == []
