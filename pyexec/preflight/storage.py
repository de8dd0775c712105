"""Checks of what lies on this machine: directories, the blob store, the installer, certificates, the port."""

import errno
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from pyexec.adapters.blobs.object_store import ObjectBlobs
from pyexec.adapters.data_dir import DataDir
from pyexec.domain.spec import MEBIBYTE
from pyexec.errors import ExecutorError, Unavailable
from pyexec.preflight.findings import Finding, failed, fine, warning
from pyexec.sandbox.environments.setup import installed_uv
from pyexec.services.clock import new_execution_id
from pyexec.settings import Settings

LOW_MB = 1024
BLOB_SECONDS = 30.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TEXT = b"a check-up has written this, and removes it"


def check_address(settings: Settings) -> Iterator[Finding]:
    """Whether it can listen, and for whom."""
    where = f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                yield warning(
                    "address",
                    f"{where} is in use: by the server that runs, or by something in its way",
                )
            else:
                yield failed(
                    "address", f"{where} cannot be used: {error.strerror}", "set PYEXEC_HOST and PYEXEC_PORT"
                )
        else:
            yield fine("address", f"{where} is free")
    if settings.host not in _LOOPBACK and not settings.api_tokens:
        yield warning(
            "address",
            f"whoever reaches {where} may run programs; set PYEXEC_API_TOKENS, or PYEXEC_HOST to 127.0.0.1",
        )
    if settings.consul_addr and settings.host in _LOOPBACK and not settings.advertise_addr:
        yield warning(
            "address",
            "servers on other machines cannot ask this one for live output; set PYEXEC_HOST, and PYEXEC_ADVERTISE_ADDR",
        )


def check_data_dir(settings: Settings) -> Iterator[Finding]:
    """Whether it can be written to, has room, and is nobody else's."""
    path = settings.data_dir
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    mend = "PYEXEC_DATA_DIR must be a directory that the server may write to"
    try:
        _write_and_remove(there)
        holder = DataDir.lock_owner(path)
        free_mb = shutil.disk_usage(there).free // MEBIBYTE
    except OSError as error:
        yield failed("data", f"{str(path)!r} cannot be used: {error.strerror}", mend)
        return
    if free_mb < LOW_MB:
        yield warning("data", f"{str(path)!r} has {free_mb} MiB left; outputs and waiting uploads lie there")
    if holder is not None:
        yield fine("data", f"{str(path)!r} is held by the server that runs as process {holder}")
    else:
        yield fine(
            "data", f"{str(path)!r} can be written{'' if there == path.absolute() else ', and is made'}"
        )


def _write_and_remove(directory: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".pyexec-check-") as file:
        file.write(_TEXT)
        file.flush()
        os.fsync(file.fileno())


async def check_blobs(settings: Settings) -> Sequence[Finding]:
    """Whether what is put into the blob store comes back, where there is one of its own."""
    return [] if settings.blob_url is None else [await _try_blobs(settings.blob_url)]


async def _try_blobs(url: str) -> Finding:
    name = f"{new_execution_id()}/check"
    made = _missing(url, name)
    try:
        blobs = ObjectBlobs.at(url)
        with anyio.fail_after(BLOB_SECONDS):
            await blobs.put(name, _once(_TEXT))
            found = b"".join([chunk async for chunk in blobs.read(name)])
            await blobs.delete(name)
        if found != _TEXT:
            raise Unavailable("what was put there did not come back as it was")
    except TimeoutError:
        return failed("blobs", f"{url} does not answer within {BLOB_SECONDS:g} s", "set PYEXEC_BLOB_URL")
    except ExecutorError as error:
        return failed("blobs", error, "set PYEXEC_BLOB_URL, and the store's own variables for its keys")
    finally:
        for directory in made:
            with suppress(OSError):  # somebody else has put something there meanwhile
                directory.rmdir()
    return fine("blobs", f"{url} takes, gives back and removes")


def _missing(url: str, name: str) -> list[Path]:
    """The directories of a file store that are made for the first blob of this name, innermost first."""
    if urlsplit(url).scheme != "file":
        return []
    path = Path(urlsplit(url).path) / name
    return [parent for parent in path.parents if not parent.exists()]


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def check_installer(settings: Settings) -> Iterator[Finding]:
    """Whether requirements can be installed."""
    if settings.setup_network == "none":
        yield fine("installer", "PYEXEC_SETUP_NETWORK is none: nothing is installed")
        return
    try:
        uv = settings.uv or installed_uv()
    except FileNotFoundError:
        yield failed(
            "installer", "there is no uv", "install the server anew, or set PYEXEC_UV to a static uv"
        )
        return
    if not os.access(uv, os.X_OK):
        yield failed("installer", f"{str(uv)!r} is no program", "set PYEXEC_UV to a static uv")
    else:
        yield fine("installer", f"{str(uv)!r}")


def check_certificates(settings: Settings) -> Iterator[Finding]:
    """Whether the authorities for setups can be read, where they are not the usual ones."""
    if settings.ca_bundle is None:
        return
    try:
        count = len(ssl.create_default_context(cafile=settings.ca_bundle).get_ca_certs())
    except OSError as error:  # an ssl.SSLError is one, too
        reason = error.strerror or str(error)
        yield failed(
            "ca",
            f"{str(settings.ca_bundle)!r} holds no certificates: {reason}",
            "set PYEXEC_CA_BUNDLE to a PEM file",
        )
    else:
        yield fine("ca", f"{str(settings.ca_bundle)!r} holds {count} authorities")
