"""The synchronous client, against the real server: the asynchronous one's methods without `await`."""

import inspect
import itertools
import subprocess
import sys
import threading

import pytest

from pyexec_client import (
    AsyncClient,
    Client,
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


def test_it_has_the_methods_and_arguments_of_the_asynchronous_one():
    ours, theirs = methods(Client), methods(AsyncClient)
    assert ours.keys() == theirs.keys()
    for name, signature in ours.items():
        assert list(signature.parameters) == list(theirs[name].parameters), name
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
    assert execution_id in [entry.execution_id for entry in client.list(limit=500)]
    assert b"".join(client.logs(execution_id, stream="stdout")) == b"out\n"
    assert isinstance(list(client.events(execution_id))[-1], Ended)
    assert client.eval("6 * 7").result == "42"


def test_waiting_has_an_end_and_so_has_killing(client):
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


def test_leaving_a_stream_early_ends_the_run(client):
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


def test_many_threads_may_share_one(client):
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


def test_it_works_again_after_closing_and_a_program_that_forgets_it_ends(server):
    client = Client(server.url)
    assert client.eval("1").result == "1"
    client.close()
    client.close()
    assert client.eval("2").result == "2"
    client.close()
    forgetful = f"from pyexec_client import Client\nprint(Client({server.url!r}).eval('3').result)"
    done = subprocess.run(
        [sys.executable, "-c", forgetful], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "3\n"


async def test_map_gives_results_as_they_come_and_takes_sources_as_they_are_needed(server):
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


async def test_the_first_that_raises_ends_the_others(server):
    async with AsyncClient(server.url) as client:
        with pytest.raises(InvalidRequest):
            async for _ in client.map([SLEEPER, {"readme.txt": "no code"}], concurrency=2):
                pass
        with pytest.raises(ValueError, match="concurrency"):
            client.map([], concurrency=0)
        assert [result async for result in client.map([])] == []
