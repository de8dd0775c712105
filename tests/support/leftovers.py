"""Find what a request has left behind: executions, files, descriptors, containers, slots."""

import os
from pathlib import Path

from attrs import frozen

from tests.support.api import Api
from tests.support.containers import containers, deployment_of, until_containers
from tests.support.server import Server

RUNS_FOR_EACH = 10
SHOW_CONTAINER = r"""
import re
print(re.search(r'containers/(\w+)/hostname', open('/proc/self/mountinfo').read())[1])
"""
KEPT = ("log.sqlite3", "log.sqlite3-wal", "log.sqlite3-shm", "lock", "deployment")


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
    """Check that the engine has exactly `size` idle sandboxes, and that the pool uses or removes each of them.

    A leaked sandbox would stay and never be used."""
    deployment = deployment_of(server.data_dir)
    unused = set(await until_containers(deployment, size))
    for _ in range(RUNS_FOR_EACH * size):
        if not unused:
            break
        used = (await api.run(SHOW_CONTAINER))["stdout"].strip()
        unused.discard(used)
    assert unused.isdisjoint(await containers(deployment)), f"leaked containers: {sorted(unused)}"
    await until_containers(deployment, size)
