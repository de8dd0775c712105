"""Fixtures: a client of the shared server, and a server with small limits, on which every leak is visible."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from tests.support.api import Api, api_of
from tests.support.leftovers import check_pool_full, check_works
from tests.support.server import NETWORKS, Server, running_server
from tests.support.sessions import Session, opened

NARROW_POOL = 1


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with api_of(server.url) as client:
        yield client


@pytest.fixture
async def session(api: Api, session_image: str) -> AsyncIterator[Session]:
    async with opened(api, docker_image=session_image, config={"memory_mb": 256}) as session:
        yield session


@pytest.fixture(scope="module")
def shared_session(server: Server, session_image: str) -> Iterator[Any]:
    """Open a session for a whole file; yield its document."""

    async def send(method: str, path: str, **options: Any) -> Any:
        async with api_of(server.url) as api:
            return (await api.request(method, path, **options)).document

    body = {"docker_image": session_image, "config": {"memory_mb": 256}}
    document = anyio.run(partial(send, "POST", "/api/v1/sessions", json=body))
    yield document
    anyio.run(send, "DELETE", f"/api/v1/sessions/{document['id']}")


@pytest.fixture
def shared(api: Api, shared_session: Any) -> Session:
    """Return the session of this file, with the variables and files that other tests have left."""
    return Session(api, shared_session)


@pytest.fixture(scope="session")
def narrow_process(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with one slot, one warm sandbox and low ceilings. A leaked slot makes the next run fail by
    `queue_timeout`. An internal error is in the log, which must have no traceback at the end."""
    settings = {
        **NETWORKS,
        "max_concurrent": "1",
        "warm_pool": str(NARROW_POOL),
        "queue_timeout": "30",
        "max_upload_mb": "64",
        "max_metadata_mb": "1",
        "max_memory_mb": "2048",
        "max_disk_mb": "4096",
        "max_timeout": "600",
        "max_cpus": "2",
        "upload_idle_timeout": "2",
    }
    with running_server(tmp_path_factory.mktemp("narrow") / "data", image, **settings) as narrow:
        yield narrow
        log = narrow.log.read_text()
        assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def narrow_server(narrow_process: Server) -> Iterator[Server]:
    """Yield the narrow server; check after the tests of a file that its slot is free and its pool is full."""
    yield narrow_process
    anyio.run(_check_whole, narrow_process)


async def _check_whole(server: Server) -> None:
    async with api_of(server.url) as api:
        await check_works(api)
        await check_pool_full(server, api, NARROW_POOL)


@pytest.fixture
async def narrow(narrow_server: Server) -> AsyncIterator[Api]:
    async with api_of(narrow_server.url) as client:
        yield client
