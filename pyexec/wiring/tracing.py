"""Open the exporter of traces, if the environment names a collector."""

import importlib.util
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from pyexec.addresses import is_url
from pyexec.errors import SettingsError
from pyexec.services.tracing import ExecutionTraces

logger = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
INSTALL = ".venv/bin/pip install --constraint requirements.lock --editable '.[otel]'"
"""From the checkout: no package index has the server, so anyone could publish a package with its name."""
FLUSH_SECONDS = 5.0
"""How long the last spans may delay the end of the server."""
_PACKAGE = "opentelemetry.exporter.otlp.proto.http"


def is_tracing(environ: Mapping[str, str]) -> bool:
    """Return True if traces are exported; raise `SettingsError` if they should be and cannot be."""
    endpoint = environ.get(ENDPOINT, "").strip()
    if not endpoint or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if not is_url(endpoint, ("http", "https")):
        raise SettingsError(f"{ENDPOINT} is {endpoint!r}; allowed: an address as http://host:4318")
    protocol = environ.get(PROTOCOL, "").strip() or "http/protobuf"
    if protocol != "http/protobuf":
        raise SettingsError(f"{PROTOCOL} is {protocol!r}; allowed: http/protobuf")
    if not _is_installed():
        raise SettingsError(
            f"{ENDPOINT} is set, but the packages that export traces are missing; in the checkout, run {INSTALL}, or "
            "unset the variable"
        )
    return True


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_PACKAGE) is not None
    except ModuleNotFoundError:
        return False


@asynccontextmanager
async def open_traces(replica_id: str) -> AsyncIterator[ExecutionTraces | None]:
    """Yield the traces of this replica's executions, or None if no collector is configured.

    At the end, export the last spans, at most for `FLUSH_SECONDS`. Raises `SettingsError`."""
    if not is_tracing(os.environ):
        yield None
        return
    from pyexec.adapters.tracing import OtlpTracer  # takes a fifth of a second, and 20 MB of memory

    tracer = OtlpTracer(replica_id)
    try:
        yield ExecutionTraces(tracer)
    finally:
        with anyio.CancelScope(shield=True):
            flushed = await anyio.to_thread.run_sync(tracer.close, FLUSH_SECONDS)
        if not flushed:
            logger.warning("the last spans are lost: the collector did not take them in %g s", FLUSH_SECONDS)
