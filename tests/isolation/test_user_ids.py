"""Test that no two sandboxes on an engine have the same user id, whichever server has started them."""

import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from attrs import evolve

from pyexec.adapters.docker.config import SecurityOptions
from pyexec.adapters.docker.engine import DockerEngine
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import EngineError
from pyexec.ports import Container, ContainerSpec
from tests.support.images import docker, own_image

SHOW_FILES = """
import os, pwd, time
inodes = [os.stat(path).st_ino for path in ('/etc/passwd', '/etc/group', '/etc/hosts')]
owners = {os.stat(path).st_uid for path in ('/work', '/tmp', '/dev/shm')}
print(os.getuid(), os.getgid(), *owners, pwd.getpwuid(os.getuid()).pw_name, *inodes, flush=True)
time.sleep(60)
"""


@asynccontextmanager
async def engine_with(uids: range) -> AsyncIterator[DockerEngine]:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    engine = await DockerEngine.connect(host, SecurityOptions(), uids, 60.0)
    try:
        yield engine
    finally:
        await engine.close()


def spec_of(image: str) -> ContainerSpec:
    return ContainerSpec(
        image=image,
        command=("python3", "-I", "-S", "-c", SHOW_FILES),
        labels={"pyexec-test": "user-ids"},
        memory_bytes=64 * MEBIBYTE,
        disk_bytes=MEBIBYTE,
        shm_bytes=MEBIBYTE,
        pids_max=16,
        cpu_shares=1024,
        cpus=None,
        log_bytes=MEBIBYTE,
        network=None,
    )


async def line_of(container: Container) -> list[str]:
    data = b""
    while not data.endswith(b"\n") and (part := await container.read()) is not None:
        data += part
    return data.decode().split()


def unused_ids(count: int) -> range:
    """Return ids that no other test uses."""
    first = 10**8 + secrets.randbelow(10**8)
    return range(first, first + count)


async def test_two_servers_never_use_the_same_id(image: str) -> None:
    ids = unused_ids(2)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(engine_with(ids)) for _ in range(2)]
        one, two = await first.start(spec_of(image)), await second.start(spec_of(image))
        stack.push_async_callback(two.remove)
        try:
            lines = [await line_of(one), await line_of(two)]
            assert {int(line[0]) for line in lines} == set(ids)
            for uid, gid, owner, name, *_ in lines:
                assert (gid, owner, name) == (uid, uid, "sandbox")
            assert not set(lines[0][4:]) & set(lines[1][4:]), "the sandboxes share a file"
            with pytest.raises(EngineError, match="all 2 user ids of PYEXEC_SANDBOX_UIDS are used"):
                await second.start(spec_of(image))
        finally:
            await one.remove()
        three = await second.start(spec_of(image))
        stack.push_async_callback(three.remove)
        assert (await line_of(three))[0] == lines[0][0]


async def test_a_single_id_is_shared_and_removed_files_are_created_again(image: str) -> None:
    async with engine_with(unused_ids(1)) as engine:
        one = await engine.start(spec_of(image))
        try:
            first = await line_of(one)
            image_id = docker("image", "inspect", "--format", "{{.Id}}", image)[0]
            docker("run", "--rm", "--network=none", f"--volume=pyexec-etc-{image_id[7:39]}:/etc-files", image,
                   "python3", "-c", f"import os; os.unlink('/etc-files/passwd-{first[0]}')")  # fmt: skip
            two = await engine.start(spec_of(image))
            try:
                assert (await line_of(two))[:4] == first[:4]
            finally:
                await two.remove()
        finally:
            await one.remove()


async def test_a_sandbox_starts_although_its_files_are_removed_repeatedly(image: str) -> None:
    with own_image(image) as own:
        image_id = docker("image", "inspect", "--format", "{{.Id}}", own)[0]
        async with engine_with(unused_ids(1)) as engine, anyio.create_task_group() as tasks:
            tasks.start_soon(_remove_repeatedly, f"pyexec-etc-{image_id[7:39]}", name="removal of the volume")
            container = await engine.start(spec_of(own))
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await container.remove()


async def test_a_sandbox_has_the_image_that_was_found_although_its_name_has_moved(image: str) -> None:
    """The volumes of the image that was found are in memory. Those of another one would be on the engine's disk."""
    with own_image(image) as own:
        (image_id,) = docker("image", "inspect", "--format", "{{.Id}}", image)
        async with engine_with(unused_ids(1)) as engine:
            container = await engine.start(evolve(spec_of(own), image_id=image_id))
            try:
                assert docker("inspect", "--format", "{{.Image}}", container.id) == [image_id]
            finally:
                await container.remove()


async def _remove_repeatedly(volume: str) -> None:
    """Remove a volume for a second, whenever no container uses it."""
    with anyio.move_on_after(1):
        while True:
            command = ["docker", "volume", "rm", "--force", volume]
            await anyio.run_process(
                command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
