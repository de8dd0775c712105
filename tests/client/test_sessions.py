"""Test the sessions of both clients with a server in memory."""

import inspect
import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from functools import partial

import anyio
import pytest

from pyexec_client import (
    AsyncClient,
    AsyncSession,
    Client,
    Displayed,
    Ended,
    InvalidAnswer,
    InvalidRequest,
    Lifecycle,
    NotFound,
    Output,
    Retry,
    Session,
    SessionClosed,
    SessionInfo,
)
from pyexec_client.session import AsyncSessionFiles
from pyexec_client.sync_session import SessionFiles
from pyexec_client.transport import Transport
from tests.support.fake_sessions import FakeSessions, fake_sessions

LARGE = 5 * 1024 * 1024 + 17


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, FakeSessions]]:
    with fake_sessions() as running:
        yield running


@pytest.fixture
def fake(server: tuple[str, FakeSessions]) -> FakeSessions:
    return server[1]


@pytest.fixture
async def client(server: tuple[str, FakeSessions]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server[0], retry=Retry(attempts=0)) as client:
        yield client


@pytest.fixture
async def session(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with client.session() as session:
        yield session


async def test_a_session_keeps_variables_and_closes_at_the_end(client: AsyncClient) -> None:
    async with client.session(requirements="numpy", timeout=5, idle_timeout=60, lifetime=600) as session:
        assert session.info.is_open
        assert (session.info.idle_timeout_seconds, session.info.lifetime_seconds) == (60, 600)
        await session.eval("x = 6 * 7")
        result = await session.eval("print(x)\nx + 1")
        assert (result.stdout, result.result, result.session_id) == ("42\n", "43", session.id)
        assert session.id in [each.id for each in await client.sessions()]
    again = await client.get_session(session.id)
    assert (again.info.status, again.info.close_reason) == ("closed", "deleted")
    with pytest.raises(SessionClosed) as error:
        await again.eval("1")
    assert (error.value.status, error.value.code) == (410, "session_closed")


async def test_a_session_without_a_block_says_what_to_write(client: AsyncClient) -> None:
    with (
        Client() as synchronous,
        pytest.raises(AttributeError, match=r"'eval'.*`with client\.session\(\) as s"),
    ):
        synchronous.session().eval("1")
    with pytest.raises(AttributeError, match=r"'eval'.*`async with client\.session\(\) as session:`"):
        await client.session().eval("1")
    with pytest.raises(TypeError, match=r"`session = await client\.open_session\(\)`"):
        await client.session()


async def test_a_cancelled_block_closes_its_session(client: AsyncClient) -> None:
    with anyio.move_on_after(1):
        async with client.session() as session:
            await anyio.sleep_forever()
    assert not session.info.is_open


async def test_a_failure_to_close_does_not_hide_the_error_of_the_block(client: AsyncClient) -> None:
    async def fail_without_the_server() -> None:
        async with client.session() as session:
            session._http = nowhere
            raise LookupError("mine")

    nowhere = Transport("http://127.0.0.1:1")
    with pytest.raises(LookupError, match="mine") as raised:
        await fail_without_the_server()
    await nowhere.close()
    assert "was not closed: cannot reach" in raised.value.__notes__[0]


async def test_options_are_sent_as_the_api_names_them(client: AsyncClient, fake: FakeSessions) -> None:
    options = {"image": "python:3.13", "env": {"A": "1"}, "pre_commands": ["true"], "memory_mb": 64}
    async with client.session(network=True, timeout=5, **options) as session:
        assert fake.sessions[session.id].request == {
            "docker_image": "python:3.13",
            "env_vars": ["A=1"],
            "pre_commands": ["true"],
            "config": {"memory_mb": 64, "network_disabled": False, "timeout_seconds": 5},
        }
        await session.eval("1", timeout=2.5)
        assert fake.requests[-1] == {"code": "1", "timeout_seconds": 2.5}
    with pytest.raises(TypeError, match="unknown option 'stdin'"):
        await client.open_session(stdin="x")
    with pytest.raises(InvalidRequest):
        await client.open_session(image="none")


async def test_a_source_fills_the_directory(client: AsyncClient) -> None:
    async with client.session({"data/a.csv": "1,2"}) as session:
        assert await session.files.read("data/a.csv") == b"1,2"


async def test_an_attached_session_stays_open(client: AsyncClient) -> None:
    opened = await client.open_session()
    async with await client.get_session(opened.id) as session:
        await session.eval("y = 1")
    assert (await opened.refresh()).is_open
    assert (await opened.eval("y")).result == "1"
    assert (await opened.close()).status == "closed"


async def test_events_arrive_live(session: AsyncSession) -> None:
    seen = []
    result = await session.run("print('here')\n7", on_event=seen.append)
    assert (result.result, result.stdout) == ("7", "here\n")
    kinds = [type(event) for event in seen]
    assert kinds[0] is Lifecycle
    assert kinds[-2:] == [Output, Ended]
    shown = [event async for event in session.stream("show") if isinstance(event, Displayed)]
    assert shown[0].display.content() == b"\x89PNG"


async def test_the_same_key_runs_the_cell_once(session: AsyncSession) -> None:
    await session.eval("n = 0")
    first = await session.eval("n += 1\nn", idempotency_key="k")
    assert await session.eval("n += 1\nn", idempotency_key="k") == first
    assert (await session.eval("n")).result == "1"


async def test_submit_wait_interrupt_and_restart(client: AsyncClient, session: AsyncSession) -> None:
    execution_id = await session.submit("z = 3\nz")
    assert (await client.wait(execution_id)).result == "3"
    assert await session.interrupt() is False
    async with anyio.create_task_group() as tasks:
        results = []

        async def sleep() -> None:
            results.append(await session.eval("sleep"))

        tasks.start_soon(sleep)
        while (await session.refresh()).running_cell is None:
            pass
        assert await session.interrupt() is True
    assert results[0].error_type == "KeyboardInterrupt"
    assert (await session.eval("z")).result == "3"
    assert (await session.restart()).interpreter_restarts == 1
    assert (await session.eval("z")).error_type == "NameError"
    died = await session.eval("die")
    assert died.interpreter_restarted
    assert not (await session.eval("1")).interpreter_restarted


async def test_files(session: AsyncSession, tmp_path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"abc"

    files = session.files
    (tmp_path / "f").write_bytes(b"x" * LARGE)
    await files.upload("a b/ä?.txt", b"")
    await files.upload("large", tmp_path / "f")
    await files.upload("open", io.BytesIO(b"open"))
    await files.upload("stream", chunks())
    assert await files.read("a b/ä?.txt") == b""
    assert sum([len(chunk) async for chunk in files.download("large")]) == LARGE
    assert await files.read("stream") == b"abc" * 3
    listed = await files.list()
    assert {each.path: each.size for each in listed} == {
        "a b/ä?.txt": 0,
        "large": LARGE,
        "open": 4,
        "stream": 9,
    }
    assert (len(listed), listed.truncated) == (4, False)
    assert [each.path for each in await files.list("*.txt")] == ["a b/ä?.txt"]
    tar = b"".join([chunk async for chunk in files.download_tar("o*")])
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.getnames() == ["open"]
    await files.delete("open")
    with pytest.raises(NotFound):
        await files.read("open")


async def test_bad_files_are_the_callers_errors(session: AsyncSession, tmp_path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ValueError("it broke")

    upload = session.files.upload
    for call, error in (
        (partial(upload, "f", tmp_path / "missing"), FileNotFoundError),
        (partial(upload, "f", io.StringIO("text")), ValueError),
        (partial(upload, "f", broken()), ValueError),
        (partial(upload, "f", "text"), TypeError),
        (partial(upload, "/", b""), ValueError),
    ):
        with pytest.raises(error):
            await call()


async def test_an_error_of_the_callers_stream_keeps_its_cause(session: AsyncSession) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ValueError("it broke") from KeyError("cause")

    with pytest.raises(ValueError, match="it broke") as caught:
        await session.files.upload("f", broken())
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"id": "s"}, {"id": "s", "status": "open", "created_at": 1}]
)
def test_an_invalid_answer_is_reported(answer: object) -> None:
    with pytest.raises(InvalidAnswer):
        SessionInfo.from_json(answer)


async def test_ids_are_checked(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="ses_0123abcd"):
        await client.get_session("../x")
    with pytest.raises(NotFound):
        await client.get_session("ses_unknown")


@pytest.mark.parametrize("path", ["", "/", "..", "../../ses_2", "a/../b", "./a"])
async def test_a_path_that_leads_to_another_endpoint_is_rejected(client: AsyncClient, path: str) -> None:
    """Deleting the file `..` closed the session."""
    async with client.session() as session:
        for request in (session.files.delete(path), session.files.read(path)):
            with pytest.raises(ValueError, match="invalid file path"):
                await request
        assert (await session.refresh()).is_open


def test_the_synchronous_client(server: tuple[str, FakeSessions]) -> None:
    with Client(server[0]) as client:
        with client.session(timeout=5) as session:
            session.eval("x = 1")
            seen = []
            assert session.run("print(x)\nx", on_event=seen.append).result == "1"
            assert isinstance(seen[-1], Ended)
            assert isinstance(list(session.stream("x"))[-1], Ended)
            session.files.upload("f", b"data")
            assert b"".join(session.files.download("f")) == b"data"
            assert [each.path for each in session.files.list()] == ["f"]
            assert client.get_session(session.id).info.is_open
            assert client.wait(session.submit("x")).result == "1"
            assert session.interrupt() is False
            assert session.restart().interpreter_restarts == 1
        assert session.refresh().close_reason == "deleted"
        assert session.id in [each.id for each in client.sessions()]
        session.__exit__(None, None, None)  # closing twice is no error


@pytest.mark.parametrize(("sync", "other"), [(Session, AsyncSession), (SessionFiles, AsyncSessionFiles)])
def test_methods_and_arguments_match(sync: type, other: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = {name: value for name, value in vars(kind).items() if callable(value) and name[0] != "_"}
        return {name: list(inspect.signature(value).parameters) for name, value in public.items()}

    assert methods(sync) == methods(other)
