"""A client for the few calls of the Docker Engine API that setup needs."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from console import SetupError

_RESPONSE_SECONDS = 30.0
_BLOCK = 1 << 20


class DockerEngine:
    """A Docker Engine at `unix:///path` or `tcp://host:port`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._parts = urlsplit(address)
        if self._parts.scheme not in ("unix", "tcp"):
            raise SetupError(f"Invalid Docker address {address!r}: expected unix:///path or tcp://host:port.")

    def is_available(self) -> bool:
        """Return True if the engine responds; raise a `SetupError` if this user has no permission to use it."""
        try:
            with self._request("GET", "/_ping", seconds=5) as response:
                return response.status == http.HTTPStatus.OK
        except PermissionError as error:
            raise SetupError(f"Permission denied for Docker at {self.address}: run this as root.") from error
        except OSError:
            return False

    def has_image(self, name: str) -> bool:
        """Return True if the image is present on the engine."""
        with self._request("GET", f"/images/{quote(name)}/json") as response:
            return response.status == http.HTTPStatus.OK

    def pull(self, name: str, stall_seconds: float) -> None:
        """Pull an image; time out if the engine reports no progress for `stall_seconds`."""
        tagged = "@" in name or ":" in name.rpartition("/")[2]
        # Without a tag, the engine would pull all tags.
        self._create(name, {"fromImage": name if tagged else f"{name}:latest"}, seconds=stall_seconds)

    def import_image(self, name: str, root: IO[bytes], command: str) -> None:
        """Create an image from the tar of a root file system; `command` is its default command."""
        repository, _, tag = name.partition(":")
        changes = f"CMD {json.dumps([command])}"
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        self._create(name, query, body=root, seconds=300)

    def containers(self, label: str) -> list[str]:
        """List the ids of all containers with `label` (`name=value`), running or stopped."""
        query = urlencode({"all": "true", "filters": json.dumps({"label": [label]})})
        with self._request("GET", f"/containers/json?{query}") as response:
            return [container["Id"] for container in json.load(response)]

    def remove(self, container: str) -> None:
        """Kill and remove a container; do nothing if it does not exist."""
        with self._request("DELETE", f"/containers/{container}?force=true&v=true") as response:
            # CONFLICT: the engine is removing it already.
            if response.status not in (
                http.HTTPStatus.NO_CONTENT,
                http.HTTPStatus.NOT_FOUND,
                http.HTTPStatus.CONFLICT,
            ):
                raise SetupError(f"Docker cannot remove container {container[:12]}: {response.read()!r}")

    def _create(
        self, name: str, query: dict[str, str], body: IO[bytes] | None = None, *, seconds: float
    ) -> None:
        path = f"/images/create?{urlencode(query)}"
        try:
            with self._request("POST", path, body, seconds=seconds) as response:
                reports = list(_reports(response))
        except TimeoutError as error:
            raise SetupError(f"Docker reported no progress on {name} for {seconds:.0f} s.") from error
        errors = [
            report.get("error") or report.get("message")
            for report in reports
            if "error" in report or "message" in report
        ]
        if errors:
            raise SetupError(f"Docker cannot provide {name}: {errors[0]}")

    def _request(
        self, method: str, path: str, body: IO[bytes] | None = None, *, seconds: float = _RESPONSE_SECONDS
    ) -> http.client.HTTPResponse:
        connection = self._connection(seconds)
        headers = {"Connection": "close"}
        if body is not None:
            headers.update({"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"})
        connection.request(method, path, body, headers, encode_chunked=body is not None)
        return connection.getresponse()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, seconds)
        return http.client.HTTPConnection(
            self._parts.hostname or "", self._parts.port or 2375, timeout=seconds, blocksize=_BLOCK
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds, blocksize=_BLOCK)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _reports(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the engine's reports, one JSON object per line: progress, "error", or "message" for a refused request."""
    for line in response:
        if line.strip():
            yield json.loads(line)
