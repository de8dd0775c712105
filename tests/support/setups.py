"""The setup containers of a server."""

import asyncio

import anyio

from tests.support.containers import changes, deployment_of
from tests.support.server import Server


async def until_no_setups(server: Server) -> None:
    """Wait until this server has no setup containers."""
    with anyio.fail_after(30):
        async with changes(deployment_of(server.data_dir), None) as changed:
            while await setups(server):
                await changed()


async def setups(server: Server) -> str:
    listing = await asyncio.create_subprocess_exec(
        "docker", "ps", "-aq", "--filter", "name=pyexec-setup-",
        "--filter", f"label=pyexec.deployment={deployment_of(server.data_dir)}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await listing.communicate()
    return out.decode().strip()
