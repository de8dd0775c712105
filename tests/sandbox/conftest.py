"""A small server to attack."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.api import api_of
from tests.support.attack import NARROW, Attack
from tests.support.server import Server, running_server


@pytest.fixture(scope="package")
def attacked(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("attacked") / "data", image, **NARROW) as server:
        yield server


@pytest.fixture
async def attack(attacked: Server) -> AsyncIterator[Attack]:
    """Runs hostile programs; afterwards the server, the machine and the next run are as before."""
    async with api_of(attacked.url) as api:
        attack = Attack(attacked, api)
        yield attack
        await attack.leaves_nothing()
