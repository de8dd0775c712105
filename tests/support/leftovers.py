"""Find what a request has left behind: executions, files, descriptors, containers, slots."""

import os
from pathlib import Path

from attrs import frozen

from tests.support.api import Api
from tests.support.containers import deployment_of, until_containers
from tests.support.metrics import until_figures
from tests.support.server import Server

KEPT = ("log.sqlite3", "log.sqlite3-wal", "log.sqlite3-shm", "lock", "deployment", "origin")


@frozen
class Remains:
    """A snapshot of a server, to compare with another one."""

    newest: str | None
    files: frozenset[Path]


async def remains(server: Server, api: Api) -> Remains:
    """Take a snapshot."""
    files = {path for path in server.data_dir.rglob("*") if path.is_file() and path.name not in KEPT}
    return Remains(await api.newest(), frozenset(files | spooled(server)))


def spooled(server: Server) -> set[Path]:
    """Return the unnamed files that the server has open in its data directory."""
    return {link for link in descriptors(server) if link.is_relative_to(server.data_dir) and "#" in link.name}


def descriptors(server: Server) -> list[Path]:
    """Return the targets of the server's open file descriptors, without those that close in the meantime."""
    links = []
    for number in os.listdir(f"/proc/{server.process.pid}/fd"):
        try:
            links.append(Path(f"/proc/{server.process.pid}/fd/{number}").readlink())
        except FileNotFoundError:
            continue
    return links


async def check_works(api: Api) -> None:
    """Run a program. On a server with one slot, this also proves that the slot was released."""
    result = await api.run("print('hello')")
    assert (result["status"], result["stdout"]) == ("completed", "hello\n"), result


async def check_pool_full(server: Server, api: Api, size: int) -> None:
    """Check that the engine has exactly `size` sandboxes, and that all of them are idle in the pool."""
    await check_works(api)
    await until_containers(deployment_of(server.data_dir), size)
    await until_figures(server.url, lambda figures: figures("pyexec_pool_waiting") == size)
