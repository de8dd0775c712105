"""Check this machine and its files: address, data directory, blob store, certificates, package installer."""

import errno
import shutil
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from pyexec.adapters.blobs.object_store import ObjectBlobs
from pyexec.adapters.data_dir import DataDir, try_write
from pyexec.adapters.sqlite.file_check import check_log
from pyexec.addresses import join_host_port
from pyexec.domain.spec import MEBIBYTE
from pyexec.domain.webhooks import SECRET_FORM
from pyexec.errors import ExecutorError, SettingsError, Unavailable
from pyexec.preflight.check_result import CheckResult, failed, ok, warning
from pyexec.services.clock import new_execution_id
from pyexec.settings import LOOPBACK, Settings
from pyexec.tenants_file import read_tenants, webhook_policy
from pyexec.wiring.setup_files import count_certificates, find_installer
from pyexec.wiring.tracing import ENDPOINT, is_tracing

LOW_MB = 1024
BLOB_SECONDS = 30.0
_DEPLOYMENT = "check"
"""Stands for the deployment id in the names of objects: the check does not know the id."""
_CONTENT = b"written and removed by python-executor-server --check"


def check_address(settings: Settings) -> Iterator[CheckResult]:
    """Check that the server can listen at its address, and warn if the address is too open or not open enough."""
    address = join_host_port(settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                yield warning("address", f"{address} is in use, by a running server or by another program")
            else:
                fix = "set PYEXEC_HOST and PYEXEC_PORT"
                yield failed("address", f"cannot listen on {address}: {error.strerror}", fix)
        else:
            yield ok("address", f"{address} is free")
    if settings.is_open:
        yield warning(
            "address",
            f"anyone who can reach {address} can run programs; set PYEXEC_API_TOKENS, or PYEXEC_HOST to 127.0.0.1",
        )
    if settings.consul_addr and settings.host in LOOPBACK and not settings.advertise_addr:
        yield warning(
            "address",
            "replicas on other machines cannot fetch live output from this one; set PYEXEC_HOST and "
            "PYEXEC_ADVERTISE_ADDR",
        )


def check_tenants(settings: Settings) -> Iterator[CheckResult]:
    """Check that the file of tenants, if there is one, can be used."""
    if settings.tenants_file is None:
        return
    try:
        tenants = read_tenants(settings)
    except SettingsError as error:
        yield failed("tenants", error)
    else:
        yield ok("tenants", f"{str(settings.tenants_file)!r}: {', '.join(tenants.names)}")


def check_traces(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Check that traces can be exported, if a collector is configured. It need not answer: no run depends on it."""
    try:
        if is_tracing(environ):
            yield ok("traces", f"exported to {urlsplit(environ[ENDPOINT].strip()).hostname}")
    except SettingsError as error:
        yield failed("traces", error)


def check_webhooks(settings: Settings) -> Iterator[CheckResult]:
    """Check that webhooks can be signed, if hosts are set."""
    try:
        policy = webhook_policy(settings, tenants := read_tenants(settings))
    except SettingsError:
        return  # check_tenants reports it
    if not policy.hosts:
        if policy.default_secrets or any(policy.secrets.values()):
            yield warning("webhooks", "there are secrets but no hosts; set PYEXEC_WEBHOOK_HOSTS")
        return
    unsigned = [name for name in tenants.names if not policy.secrets_of(name)]
    if len(unsigned) == len(tenants.names):
        yield failed(
            "webhooks", "there are hosts but no secrets", f"set PYEXEC_WEBHOOK_SECRETS to {SECRET_FORM}"
        )
    elif unsigned:
        yield warning("webhooks", f"disabled for tenants without a secret: {', '.join(unsigned)}")
    else:
        yield ok("webhooks", f"allowed hosts: {', '.join(settings.webhook_hosts)}")


def check_data_dir(settings: Settings) -> Iterator[CheckResult]:
    """Check that the data directory is writable, has free space, is not used by another server, and that a log in it
    can be opened."""
    path = settings.data_dir.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    shown = repr(str(settings.data_dir))
    try:
        try_write(existing)
        DataDir.check_deployment(settings.data_dir)
        holder = DataDir.lock_owner(settings.data_dir)
        free_mb = shutil.disk_usage(existing).free // MEBIBYTE
        if holder is None and settings.consul_addr is None:
            check_log(settings.data_dir)
    except OSError as error:
        fix = "PYEXEC_DATA_DIR must be a directory that the server can write to"
        yield failed("data", f"cannot use {shown}: {error.strerror}", fix)
        return
    except SettingsError as error:
        yield failed("data", error, "or set PYEXEC_DATA_DIR to a new directory")
        return
    except ExecutorError as error:
        yield failed("data", f"cannot use {shown}: {error}")
        return
    if free_mb < LOW_MB:
        yield warning(
            "data", f"{shown} has only {free_mb} MiB left; outputs and uploads in progress are stored there"
        )
    if holder is not None:
        yield ok("data", f"{shown} is in use by a running server, process {holder}")
    else:
        yield ok("data", f"{shown} is writable{'' if existing == path else ', and will be created'}")


async def check_blobs(settings: Settings) -> Sequence[CheckResult]:
    """Check that the blob store returns what is written to it, if PYEXEC_BLOB_URL names one."""
    return [] if settings.blob_url is None else [await _try_blobs(settings.blob_url)]


async def _try_blobs(url: str) -> CheckResult:
    name = f"{new_execution_id()}/check"
    created = _missing_directories(url, f"{_DEPLOYMENT}/{name}")
    try:
        blobs = ObjectBlobs.at(url, _DEPLOYMENT)
        with anyio.fail_after(BLOB_SECONDS):
            await blobs.put(name, _once(_CONTENT))
            content = b"".join([chunk async for chunk in blobs.read(name)])
            await blobs.delete(name)
        if content != _CONTENT:
            raise Unavailable("the store returned other bytes than were written")
    except TimeoutError:
        return failed("blobs", f"{url} timed out after {BLOB_SECONDS:g} s", "set PYEXEC_BLOB_URL")
    except ExecutorError as error:
        return failed("blobs", error, "set PYEXEC_BLOB_URL, and the variables with the store's credentials")
    finally:
        for directory in created:
            with suppress(OSError):  # not empty: another process has written to it
                directory.rmdir()
    return ok("blobs", f"write, read and delete work at {url}")


def _missing_directories(url: str, name: str) -> list[Path]:
    """Return the directories that a file store creates for its first blob of this name, innermost first."""
    if urlsplit(url).scheme != "file":
        return []
    path = Path(urlsplit(url).path) / name
    return [parent for parent in path.parents if not parent.exists()]


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def check_certificates(settings: Settings) -> Iterator[CheckResult]:
    """Check that PYEXEC_CA_BUNDLE, if set, is a readable PEM file."""
    if settings.ca_bundle is None:
        return
    try:
        count = count_certificates(settings.ca_bundle)
    except SettingsError as error:
        yield failed("ca", error)
    else:
        yield ok("ca", f"{str(settings.ca_bundle)!r} contains {count} certificate authorities")


def check_installer(settings: Settings) -> Iterator[CheckResult]:
    """Check that the package installer exists and is executable."""
    if settings.setup_network == "none":
        yield ok("installer", "not used: package installation is disabled (PYEXEC_SETUP_NETWORK=none)")
        return
    yield from _check_index(settings)
    try:
        uv = find_installer(settings.uv)
    except SettingsError as error:
        yield failed("installer", error)
    else:
        yield ok("installer", repr(str(uv)))


def check_sessions(settings: Settings) -> Iterator[CheckResult]:
    """Report in which images interpreter sessions can run."""
    if settings.max_sessions == 0:
        yield ok("sessions", "disabled (PYEXEC_MAX_SESSIONS=0)")
    elif settings.setup_network == "none":
        text = "need an image with IPython: package installation is disabled (PYEXEC_SETUP_NETWORK=none)"
        yield ok("sessions", text)
    else:
        yield ok("sessions", f"at most {settings.max_sessions}; if an image has no IPython, it is installed")


def _check_index(settings: Settings) -> Iterator[CheckResult]:
    """Warn if setups can read the password of the package index."""
    if settings.pip_proxy is not None:
        return
    if urlsplit(settings.pip_index_url or "").password:
        yield warning(
            "installer",
            "pre_commands can read the password in PYEXEC_PIP_INDEX_URL; set PYEXEC_PIP_PROXY to keep it in the server",
        )
