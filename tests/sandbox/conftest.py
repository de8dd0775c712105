"""A small server to attack."""

import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest

from tests.support.api import api_of
from tests.support.attack import NARROW, POOL, Attack
from tests.support.containers import deployment_of, until_containers
from tests.support.server import Server, running_server
from tests.support.session_sandboxes import Client, SharedSession, connected_engine, open_session, serving


@pytest.fixture(scope="package")
def attacked(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("attacked") / "data", image, **NARROW) as server:
        yield server
        anyio.run(until_containers, deployment_of(server.data_dir), POOL)


@pytest.fixture
async def attack(attacked: Server) -> AsyncIterator[Attack]:
    """Yield a runner of hostile programs; check at the end that server and next run are unaffected."""
    async with api_of(attacked.url) as api:
        attack = Attack(attacked, api)
        yield attack
        await attack.leaves_nothing()


@pytest.fixture(scope="module")
def made(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Makes images like the default one, with other variables, and with another sitecustomize or none."""
    names: list[str] = []

    def make(variables: str = "UNUSED=1", customization: str | None = "") -> str:
        context = tmp_path_factory.mktemp("image")
        (context / "sitecustomize.py").write_text(customization or "")
        (context / "Dockerfile").write_text(
            f"FROM {image}\nENV {variables}\nCOPY sitecustomize.py /\n"
            "RUN at=$(python3 -c 'import site; print(site.getsitepackages()[0])') && mkdir -p $at"
            " && find / -xdev -path /proc -prune -o -name sitecustomize.py ! -path /sitecustomize.py -exec rm -f {} +"
            f" && {'rm /sitecustomize.py' if customization is None else 'mv /sitecustomize.py $at'}\n"
        )
        names.append(f"pyexec-test-standby:{secrets.token_hex(4)}")
        build = ["docker", "build", "-q", "--network", "none", "-t", names[-1], context]
        subprocess.run(build, check=True, capture_output=True)
        return names[-1]

    yield make
    subprocess.run(["docker", "rmi", "-f", *names], check=True, capture_output=True)


@pytest.fixture(scope="module")
def shared(session_image: str) -> Iterator[SharedSession]:
    async def start() -> str:
        async with connected_engine() as engine:
            sandbox = await open_session(engine, session_image, "GREETING=hello")
            async with serving(sandbox):
                return sandbox.container_id

    async def remove(container: str) -> None:
        async with connected_engine() as engine:
            await engine.remove_container(container)

    container = anyio.run(start)
    yield SharedSession(container)
    anyio.run(remove, container)


@pytest.fixture
async def session(shared: SharedSession) -> AsyncIterator[Client]:
    async with connected_engine() as engine, serving(shared.adopted(engine)) as client:
        yield client
