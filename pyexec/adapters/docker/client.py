"""The connection to Docker: opens it, measures its requests, bounds them in time, and translates errors.

No other module reads error statuses and messages of Docker."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from time import perf_counter
from types import SimpleNamespace
from typing import Final

import aiohttp
import anyio
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiohttp.client_exceptions import UnixClientConnectorError

from pyexec.addresses import is_url
from pyexec.errors import (
    CommitRefused,
    EngineError,
    ImageUnavailable,
    SettingsError,
    Unavailable,
    shorten,
)
from pyexec.metrics import DOCKER_ERRORS, DOCKER_REQUEST_SECONDS, Meter

GONE_STATUSES: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
"""The container does not exist; or it is not running, or its removal is in progress."""
CANNOT_CONNECT: Final = 900
"""The status that aiodocker gives to a connection that could not be made, or broke."""
MESSAGE_LENGTH_MAX: Final = 2000
"""Maximum number of characters of a message of Docker: a registry or an image may choose its text."""
_ETC_VOLUME: Final = re.compile("pyexec-etc-[0-9a-f]{32}")
_REMOVED: Final = ("no such volume", "bind source path does not exist", "no such file or directory")
_BAD_FILES, _NO_SPACE = "Error processing tar file", "no space left on device"
"""In Docker's messages: files cannot be stored in a container or an image, or the engine's disk is full."""
_TOO_DEEP: Final = "max depth exceeded"
"""In Docker's message if an image would have too many layers: more than 125 in Docker 20.10."""
_NO_PYTHON: Final = ("executable file not found", "no such file or directory", "exec format error")
_BAD_MOUNT: Final = (
    "cannot mount volume over existing file",
    "mount a directory onto a file",
    "cannot be mounted because it is inside /proc",
)
"""Parts of Docker's message if an image has a file or a link where sandboxes have a mount, such as /work."""
_MOUNT_PLACE: Final = re.compile(r'(?:rootfs at "|file exists (?:\S*/merged)?)(/[\w./-]+)')

_COLLECTIONS: Final = frozenset(
    {"containers", "images", "networks", "exec", "commit", "info", "version", "events", "_ping"}
)
_VERBS: Final = frozenset(
    {"create", "start", "kill", "attach", "logs", "wait", "archive", "exec", "json", "tag", "stats"}
)
_EXPECTED_STATUSES: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
"""Not counted as errors: an object is gone already, or exists already."""


class EtcFilesRemoved(EngineError):
    """The files in /etc that a sandbox mounts, or their volume, were removed during its start (see etc_files.py)."""


def open_client(host: str, timeout_seconds: float, meter: Meter) -> Docker:
    """Return a client for `unix:///path` or `tcp://host:port`; sends no request. Needs a running event loop.

    Raises `SettingsError` if `host` is not valid."""
    scheme, _, rest = host.partition("://")
    # aiodocker knows more schemes, which need other libraries.
    if not (rest if scheme == "unix" else is_url(host, ("tcp", "http", "https"))):
        raise SettingsError(
            f"the address of the Docker engine is {host!r}; allowed are unix:///path and tcp://host:port; set "
            "PYEXEC_DOCKER_SOCKET or PYEXEC_DOCKER_HOST"
        )
    # If there is a connector, the URL is not used to connect.
    docker = Docker(
        url="unix://localhost" if scheme == "unix" else host,
        connector=aiohttp.UnixConnector(rest, limit=0) if scheme == "unix" else None,
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
    )
    docker.session.trace_configs.append(request_metrics(meter))
    return docker


async def close_client(docker: Docker) -> None:
    """Close all connections. aiodocker does not close a connector that it was given."""
    await docker.close()
    await docker.connector.close()


async def get(
    docker: Docker, path: str, params: Mapping[str, str] | None = None, *, stream: bool = False
) -> aiohttp.ClientResponse:
    """Send a GET request for which aiodocker has no method. `stream` lifts the timeout for the response body.

    The caller checks the status, and closes the response."""
    timeout = aiohttp.ClientTimeout() if stream else docker.session.timeout
    with request_timeout(docker):
        return await docker.session.get(await _url(docker, path), params=params, timeout=timeout)


async def head(docker: Docker, path: str, params: Mapping[str, str]) -> aiohttp.ClientResponse:
    """Send a HEAD request, for which aiodocker has no method. The caller checks the status."""
    with request_timeout(docker):
        async with docker.session.head(await _url(docker, path), params=params) as response:
            return response


async def post(docker: Docker, path: str, params: Mapping[str, str]) -> aiohttp.ClientResponse:
    """Send a POST request without a timeout. The caller translates errors, checks the status, and closes the response.

    aiodocker's own methods for streams do not close the response if their caller is cancelled."""
    return await docker.session.post(await _url(docker, path), params=params, timeout=aiohttp.ClientTimeout())


async def _url(docker: Docker, path: str) -> str:
    if docker.api_version == "auto":
        await docker.version()  # the first request determines the API version
    return f"{docker.docker_host}/{docker.api_version}/{path}"


async def kill_container(container: DockerContainer) -> None:
    """Send SIGKILL to all processes of a container, if it is running."""
    try:
        with request_timeout(container.docker):
            await container.kill(signal="SIGKILL")
    except EngineError as error:
        if not is_gone(error):
            raise


async def remove_container(container: DockerContainer) -> None:
    """Kill and remove a container with its volumes, if it exists."""
    try:
        with request_timeout(container.docker):
            await container.delete(force=True, v=True)
    except EngineError as error:
        if not is_gone(error):
            raise


def is_gone(error: EngineError) -> bool:
    """Return True if a container was not running or did not exist."""
    return has_status(error, GONE_STATUSES)


def has_status(error: EngineError, statuses: Collection[int]) -> bool:
    """Return True if Docker answered with one of these statuses."""
    return isinstance(error.__cause__, DockerError) and error.__cause__.status in statuses


@contextmanager
def request_timeout(docker: Docker) -> Iterator[None]:
    """Bound a request by the timeout of the client, and translate its errors.

    For requests that aiodocker does not bound itself: those that it considers long, and those that open a stream."""
    with translate_errors():
        with anyio.move_on_after(
            docker.session.timeout.total
        ) as scope:  # a third of the cost of `fail_after`
            yield
        if scope.cancelled_caught:
            raise TimeoutError


@contextmanager
def translate_errors(image: str = "") -> Iterator[None]:
    """Translate errors of aiodocker and aiohttp. `image` is the subject of the request, if it is an image."""
    try:
        yield
    except DockerError as error:
        raise translate(error, image) from error
    except TimeoutError as error:
        raise Unavailable(
            "Docker does not answer: a request timed out after PYEXEC_DOCKER_TIMEOUT"
        ) from error
    except (aiohttp.ClientError, ConnectionError, RuntimeError, AssertionError) as error:
        # aiodocker raises an AssertionError if the connection of a stream is closed already.
        raise EngineError(f"the connection to Docker broke: {error or 'it is closed'}") from error


def _connection_error(error: DockerError) -> str:
    """Return why there is no connection to Docker. aiodocker's message has the address in a form that misleads."""
    match error.__context__:
        case UnixClientConnectorError(path=str() as path, strerror=str() as reason):
            return f"cannot connect to unix://{path}: {reason}"
        case aiohttp.ClientConnectorError(host=host, port=port, strerror=str() as reason):
            return f"cannot connect to {host}:{port}: {reason}"
    return str(error.message)


def translate(error: DockerError, image: str = "") -> Exception:
    """Return the error of this program for one of aiodocker."""
    if error.status == CANNOT_CONNECT:
        return Unavailable(f"Docker does not answer: {_connection_error(error)}")
    message = shorten(str(error.message), MESSAGE_LENGTH_MAX)
    volume = _ETC_VOLUME.search(message)
    if volume and any(sign in message for sign in _REMOVED):
        return EtcFilesRemoved(
            f"files in the Docker volume {volume[0]} are missing; check what removes this volume: {message}"
        )
    if image and error.status == HTTPStatus.NOT_FOUND and "image" in message.lower():
        return ImageUnavailable(f"the image {image!r} does not exist on this Docker engine")
    if _BAD_FILES in message and _NO_SPACE not in message:
        if not image:
            return CommitRefused(f"files of the container cannot be stored: {message}")
        return ImageUnavailable(
            f"setups cannot run in the image {image!r}: their files cannot be copied to /.pyexec: {message}"
        )
    if _TOO_DEEP in message:
        return CommitRefused(f"the image has too many layers: {message}")
    if image and any(sign in message for sign in _NO_PYTHON):
        return ImageUnavailable(f"the image {image!r} has no python3 that runs on this machine: {message}")
    if image and any(sign in message for sign in _BAD_MOUNT):
        place = _MOUNT_PLACE.search(message)
        reason = f"its path {place[1]} cannot be a mount point" if place else message
        return ImageUnavailable(f"programs cannot run in the image {image!r}: {reason}")
    return EngineError(f"Docker refused the request: {message}")


def parse_time(text: str) -> datetime | None:
    """Parse a time of the Engine API, which has nanoseconds; None if `text` is not a time with a time zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


def operation_of(method: str, path: str) -> str:
    """Return the metric label of a request. It leaves out ids and names, because labels must have few values."""
    parts = re.sub(r"^/v[\d.]+/", "/", path).strip("/").split("/")
    if parts[0] not in _COLLECTIONS:
        return "other"
    verb = parts[-1] if len(parts) > 1 and parts[-1] in _VERBS else method.lower()
    return f"{parts[0]} {verb}"


def request_metrics(meter: Meter) -> aiohttp.TraceConfig:
    """Return the trace of an HTTP session that measures the duration and the errors of all requests."""

    async def on_start(_: aiohttp.ClientSession, request: SimpleNamespace, __: object) -> None:
        request.started_at = perf_counter()

    async def on_end(
        _: aiohttp.ClientSession, request: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        operation = operation_of(end.method, end.url.path)
        meter.observe(DOCKER_REQUEST_SECONDS, perf_counter() - request.started_at, operation)
        status = end.response.status
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            meter.count(DOCKER_ERRORS, operation, "server_error")
        elif status >= HTTPStatus.BAD_REQUEST and status not in _EXPECTED_STATUSES:
            meter.count(DOCKER_ERRORS, operation, "refused")

    async def on_exception(
        _: aiohttp.ClientSession, __: SimpleNamespace, failure: aiohttp.TraceRequestExceptionParams
    ) -> None:
        if isinstance(failure.exception, aiohttp.ClientError | OSError | TimeoutError):  # not a cancellation
            meter.count(DOCKER_ERRORS, operation_of(failure.method, failure.url.path), "unreachable")

    config = aiohttp.TraceConfig()
    config.on_request_start.append(on_start)
    config.on_request_end.append(on_end)
    config.on_request_exception.append(on_exception)
    config.freeze()
    return config
