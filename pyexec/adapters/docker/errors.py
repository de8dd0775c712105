"""aiodocker's and aiohttp's errors as ours: the one place that reads their statuses and messages."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import aiohttp
import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from pyexec.errors import EngineError, ImageUnavailable, Unavailable

GONE_STATUSES = (404, 409)
"""There is no such container; it is not running, or its removal is already under way."""
CANNOT_CONNECT = 900
"""The status aiodocker gives to a connection that could not be made or broke."""
_NO_ANSWER = "Docker does not answer: it took a request, and PYEXEC_DOCKER_TIMEOUT went by"
_NO_PYTHON = ("executable file not found", "no such file or directory", "exec format error")


async def kill_container(container: DockerContainer) -> None:
    """SIGKILL to all in it; fine when it has ended."""
    try:
        async with answered(container.docker):
            await container.kill(signal="SIGKILL")
    except EngineError as error:
        if not is_gone(error):
            raise


async def remove_container(container: DockerContainer) -> None:
    """Leaves nothing of it; fine when it is gone."""
    try:
        async with answered(container.docker):
            await container.delete(force=True, v=True)
    except EngineError as error:
        if not is_gone(error):
            raise


def is_gone(error: EngineError) -> bool:
    """Whether it says that there is nothing to be done to the container any more."""
    return has_status(error, GONE_STATUSES)


def has_status(error: EngineError, statuses: Collection[int]) -> bool:
    """Whether it comes of an answer of Docker's with one of these statuses."""
    return isinstance(error.__cause__, DockerError) and error.__cause__.status in statuses


@asynccontextmanager
async def answered(docker: Docker) -> AsyncIterator[None]:
    """As `translated`, for requests that aiodocker itself does not bound: those that open a stream, and others that
    it takes for long ones."""
    async with translated():
        with anyio.fail_after(docker._timeout.total):
            yield


@asynccontextmanager
async def translated(image: str = "") -> AsyncIterator[None]:
    """Turns aiodocker's and aiohttp's errors into ours, cause kept."""
    try:
        yield
    except DockerError as error:
        raise error_of(error, image) from error
    except TimeoutError as error:
        raise Unavailable(_NO_ANSWER) from error
    except (aiohttp.ClientError, ConnectionError, RuntimeError, AssertionError) as error:
        # The last of them is aiodocker's way to say that a stream's connection is closed already.
        raise EngineError(f"the connection to Docker broke: {error or 'it is closed'}") from error


def error_of(error: DockerError, image: str = "") -> Exception:
    """Our error for one of aiodocker's; `image` is what the request was about."""
    if error.status == CANNOT_CONNECT:
        return Unavailable(f"Docker does not answer: {error.message}")
    message = str(error.message)
    if image and error.status == 404 and "image" in message.lower():
        return ImageUnavailable(f"the image {image!r} is not there")
    if image and any(sign in message for sign in _NO_PYTHON):
        return ImageUnavailable(f"the image {image!r} has no python3 that runs here: {message}")
    return EngineError(f"Docker refused: {message}")
