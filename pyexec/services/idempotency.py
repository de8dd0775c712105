"""Idempotency keys: a request that is sent again names the execution of the first one.

The fingerprint tells whether two requests with one key are the same request."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.errors import KeyReused, KeyTaken
from pyexec.ports import EventLog

PIECE_CHARACTERS = 64 * 1024
"""A longer string is encoded in pieces: Python runs no other thread while one call encodes a string."""


async def check_key(log: EventLog, key: str | None, tenant: str) -> None:
    """Raise `KeyTaken` if the idempotency key already names an execution of the tenant."""
    if key is not None and (owner := await log.find_by_key(key_hash(key, tenant))):
        raise KeyTaken(*owner)


def check_same_request(taken: KeyTaken, fingerprint: str | None) -> None:
    """Raise `KeyReused` if the idempotency key was taken by a request with another fingerprint."""
    if fingerprint != taken.fingerprint:
        raise KeyReused(
            f"this Idempotency-Key was used before, with another request, for {taken.execution_id}; use a new key"
        ) from taken


def key_hash(key: str, tenant: str) -> str:
    """Return the hash under which an idempotency key is stored. Equal keys of two tenants have different hashes.

    A key has no line break, because it comes from a header. The tenant `default` has the hashes that were stored before
    there were tenants."""
    text = key if tenant == DEFAULT_TENANT else f"{tenant}\n{key}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def fingerprint(identity: str, metadata: Any, archive_sha256: str) -> str:
    """Return the SHA-256 of a request. `metadata` is a JSON document; call this in a thread if it may be large."""
    digest = hashlib.sha256(f"{identity}\n".encode("utf-8", "surrogateescape"))
    for piece in json_pieces(metadata):
        digest.update(piece.encode())
    digest.update(f"\n{archive_sha256}".encode())
    return digest.hexdigest()


def json_pieces(value: Any) -> Iterator[str]:
    """Yield the text of `json.dumps(value, sort_keys=True)` in pieces."""
    if isinstance(value, str):
        yield '"'
        for at in range(0, len(value), PIECE_CHARACTERS):
            yield json.dumps(value[at : at + PIECE_CHARACTERS])[1:-1]
        yield '"'
    elif isinstance(value, list):
        yield "["
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from json_pieces(item)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for number, name in enumerate(sorted(value)):
            yield f"{', ' if number else ''}{json.dumps(name)}: "
            yield from json_pieces(value[name])
        yield "}"
    else:
        yield json.dumps(value)
