"""Test the asynchronous client with a real server."""

import io
import tarfile
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from pyexec_client import AsyncClient, Conflict, Ended, InvalidRequest, Lifecycle, NotFound, Output, Status

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(600)"


@pytest.fixture
async def client(server):
    async with AsyncClient(server.url + "/") as client:
        yield client


def a_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        header = tarfile.TarInfo("main.py")
        header.size = len(b"print('tar')")
        archive.addfile(header, io.BytesIO(b"print('tar')"))
    return buffer.getvalue()


async def test_source_text(client):
    result = await client.run("import sys\nprint(6 * 7)\nsys.exit(3)")
    assert (result.stdout, result.exit_code, result.status, result.ok) == ("42\n", 3, Status.COMPLETED, False)
    assert result.created_at <= result.started_at <= result.finished_at
    assert result.usage.peak_memory_bytes > 0


async def test_files(client, tmp_path):
    (tmp_path / "b").write_text("B = 2")
    files = {
        "main.py": "from lib import a, b\nprint(a.A, b.B)",
        "lib/a.py": b"A = 1",
        "lib/b.py": tmp_path / "b",
    }
    assert (await client.run(files)).stdout == "1 2\n"


async def test_paths(client, tmp_path):
    (tmp_path / "main.py").write_text("print('directory')")
    (tmp_path / "one.py").write_text("print('file')")
    (tmp_path / "code.tar").write_bytes(a_tar())
    outputs = [(await client.run(tmp_path / name)).stdout for name in ("", "one.py", "code.tar")]
    assert outputs == ["directory\n", "file\n", "tar\n"]


async def test_open_tars(client):
    async def chunks():
        for byte in (a_tar()[:700], a_tar()[700:]):
            yield byte

    assert (await client.run(io.BytesIO(a_tar()))).stdout == "tar\n"
    assert (await client.run(chunks())).stdout == "tar\n"


async def test_options_reach_the_program(client):
    code = {
        "other.py": "import os, sys\nprint(os.environ['A'], sys.argv[1:], sys.stdin.read())",
        "main.py": "",
    }
    result = await client.run(code, entrypoint="other.py", env={"A": "x=y"}, args=["-1", "b c"], stdin="in")
    assert result.stdout == "x=y ['-1', 'b c'] in\n"


async def test_run_reports_events(client):
    seen = []
    result = await client.run("import os\nos.write(1, b'\\xff')", on_event=seen.append)
    assert [type(event) for event in seen if not isinstance(event, Lifecycle)] == [Output, Ended]
    assert b"".join(event.data for event in seen if isinstance(event, Output)) == b"\xff"
    steps = [event for event in seen if isinstance(event, Lifecycle)]
    assert steps[0].type == "submitted"
    assert {step.execution_id for step in steps} == {result.execution_id}
    assert result.stdout == "\ufffd"


async def test_submit_wait_get_list_and_logs(client):
    execution_id = await client.submit("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    result = await client.wait(execution_id)
    assert result.ok
    assert await client.get(execution_id) == result
    assert execution_id in [entry.execution_id async for entry in client.list(limit=500)]
    assert b"".join([chunk async for chunk in client.logs(execution_id, stream="stderr")]) == b"err\n"


async def test_timeline_and_cluster(client):
    result = await client.run("print(1)")
    timeline, cluster = await client.timeline(result.execution_id), await client.cluster()
    assert (timeline.id, timeline.events[0].type) == (result.execution_id, "submitted")
    assert (timeline.events[-1].type, timeline.events[-1].exit_code) == ("finished", 0)
    assert timeline.events[0].at == result.created_at
    assert "running" in [phase.name for phase in timeline.phases]
    (replica,) = cluster.replicas
    assert (replica.name, replica.ready, replica.leader) == (timeline.events[-1].replica, True, True)
    assert cluster.leader == replica.name
    assert [queue.tenant for queue in cluster.queue] == ["default"]


async def test_wait_times_out_and_kill_returns_the_status(client):
    execution_id = await client.submit(SLEEPER)
    with pytest.raises(TimeoutError):
        await client.wait(execution_id, timeout=0.1)
    assert await client.kill(execution_id) is Status.KILLED
    assert (await client.wait(execution_id)).status is Status.KILLED
    assert await client.kill(execution_id) is Status.KILLED


async def test_events_resume_after_any_event(client):
    execution_id = await client.submit("for i in range(3): print(i, flush=True)")
    everything = [event async for event in client.events(execution_id)]
    output = b"".join(event.data for event in everything if isinstance(event, Output))
    assert output == b"0\n1\n2\n"
    for position, event in enumerate(everything[:-1]):
        rest = [later async for later in client.events(execution_id, after=event.id)]
        before = b"".join(e.data for e in everything[: position + 1] if isinstance(e, Output))
        assert before + b"".join(e.data for e in rest if isinstance(e, Output)) == output
        assert isinstance(rest[-1], Ended)


async def test_closing_a_stream_kills_the_execution(client):
    async with aclosing(client.stream(SLEEPER)) as events:
        async for event in events:
            if isinstance(event, Lifecycle):
                execution_id = event.execution_id
            if isinstance(event, Output):
                break
    with anyio.fail_after(60):
        assert (await client.wait(execution_id)).status is Status.KILLED


async def test_the_same_key_returns_the_same_execution(client):
    first, second = [await client.submit("print(1)", idempotency_key="one-key-is-one-run") for _ in range(2)]
    assert first == second


async def test_eval(client):
    result = await client.eval("x = 6\nx * 7")
    assert (result.result, result.stdout, result.exit_code) == ("42", "", 0)
    files = {"main.py": "import m\nprint(m.X)", "m.py": "X = 5"}
    assert (await client.eval(files, last_expression=False)).stdout == "5\n"


async def test_errors_of_the_caller(client, tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        await client.run("print(1)", memory_mb=-1)
    assert caught.value.field == "config.memory_mb"
    with pytest.raises(ValueError, match="the directory is empty"):
        await client.run(tmp_path)
    with pytest.raises(NotFound):
        await client.get("exe_" + 32 * "0")
    with pytest.raises(FileNotFoundError):
        await client.run(tmp_path / "missing.py")
    with pytest.raises(TypeError, match="memory"):
        await client.run("print(1)", memory=5)
    with pytest.raises(TypeError, match="int"):
        await client.run(5)


async def test_concurrent_runs(client):
    async def one(number: int, outputs: dict[int, str]) -> None:
        outputs[number] = (await client.run(f"print({number})")).stdout

    outputs: dict[int, str] = {}
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number, outputs, name=f"run {number}")
    assert outputs == {number: f"{number}\n" for number in range(10)}


async def test_the_package_is_typed():
    import pyexec_client

    assert Path(pyexec_client.__file__).with_name("py.typed").exists()


async def test_output_files(client):
    code = "import os\nos.mkdir('out')\nfor n in ('-a b', 'ü%20?#', 'c'): open(f'out/{n}', 'w').write(n * 3)"
    result = await client.run(code, output_files=["out/*"])
    assert not result.files_truncated
    assert {file.path: file.size for file in result.files} == {"out/-a b": 12, "out/ü%20?#": 21, "out/c": 3}
    for file in result.files:
        data = await client.file(result.execution_id, file.path)
        assert data == (file.path.removeprefix("out/") * 3).encode()
    data = b"".join([chunk async for chunk in client.files(result.execution_id)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert sorted(archive.getnames()) == sorted(file.path for file in result.files)
    with pytest.raises(NotFound, match="out/d"):
        await client.file(result.execution_id, "out/d")
    with pytest.raises(ValueError, match="path"):
        await client.file(result.execution_id, "/")


async def test_output_files_before_the_end_are_a_conflict(client):
    execution_id = await client.submit(SLEEPER, output_files=["*"])
    with pytest.raises(Conflict):
        await client.file(execution_id, "main.py")
    with pytest.raises(Conflict):
        await anext(client.files(execution_id))
    async with aclosing(client.logs(execution_id, follow=True)) as output:
        assert (await anext(output)).startswith(b"up")
    await client.kill(execution_id)
    result = await client.wait(execution_id)
    assert (result.files, result.files_truncated) == ((), True)
