"""The client for Consul: keys, transactions and sessions, on top of python-consul2."""

import base64
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import consul.aio
from attrs import frozen
from consul.base import ACLDisabled, ACLPermissionDenied, ClientError, ConsulException, NotFound

from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.http import WATCH_SECONDS, OutcomeUnknown, PooledHTTP
from pyexec.errors import Conflict, ConsulSessionLost, TooLarge, Unavailable
from pyexec.metrics import NOOP_METER, Meter

TRANSACTION_BYTES_MAX: Final = 384 * 1024
"""Consul 1.8 accepts 512 KiB, but sometimes breaks the connection for less."""
OPERATIONS_MAX: Final = 64


@frozen(kw_only=True)
class Entry:
    """A key without the prefix, its value, the index of its last change, and the session that holds it."""

    key: str
    value: bytes
    index: int
    session: str | None


@frozen(kw_only=True)
class Listing:
    """All entries under a prefix, sorted by key, at an index of the store."""

    index: int
    entries: Sequence[Entry]


@frozen(kw_only=True)
class Operation:
    """One operation of a transaction. `verb` is the name that Consul gives it."""

    verb: str
    key: str
    value: bytes | None = None
    index: int | None = None
    session: str | None = None


def create(key: str, value: bytes) -> Operation:
    """Return the operation that creates a key, and fails the transaction if the key exists."""
    return Operation(verb="cas", key=key, value=value, index=0)


class TransactionConflict(Conflict):
    """Consul rolled a transaction back. `failed` holds the reasons, by the positions of the operations."""

    def __init__(self, operations: Sequence[Operation], failed: Mapping[int, str]) -> None:
        self.failed_operations = [operations[n] for n in failed]
        reasons = [f"{operations[n].verb} {operations[n].key}: {reason}" for n, reason in failed.items()]
        super().__init__(f"Consul rolled back a transaction: {'; '.join(reasons)}")


class _PooledConsul(consul.aio.Consul):  # type: ignore[misc]  # it has no types
    """python-consul2 with pooled connections."""

    def __init__(self, http: PooledHTTP, token: str | None) -> None:
        self._pooled = http
        with warnings.catch_warnings():
            # The constructor also creates endpoints that python-consul2 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            # In the default mode, a restarted Consul answers as if it were empty until it has read its own log.
            super().__init__(consistency="consistent")
        self.token = token  # after the constructor, which prefers CONSUL_HTTP_TOKEN

    def http_connect(self, *_: object, **__: object) -> PooledHTTP:
        return self._pooled


class ConsulKV:
    """The keys under one prefix, and sessions. Close it, or use it as a context manager.

    Every method raises `Unavailable` if Consul does not answer or refuses; the subclass `OutcomeUnknown` if the
    request may have taken effect."""

    def __init__(self, config: ConsulConfig, meter: Meter = NOOP_METER) -> None:
        """Create the client inside a running event loop; send no request.

        Raises `SettingsError` if `config` is not valid."""
        self._prefix = config.key_prefix()
        self._http = PooledHTTP(config.url(), config.tls(), meter)
        self.clock = self._http.clock
        with self._translate_errors("CONSUL_HTTP_ADDR"):
            self._consul = _PooledConsul(self._http, config.token)

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def request_counts(self) -> Mapping[str, int]:
        """The number of requests sent so far, by method and endpoint, such as `PUT txn`."""
        return self._http.request_counts

    async def get(self, key: str, since: int | None = None) -> tuple[int, Entry | None]:
        """Return the index and the entry, if it exists. With `since`, wait for another index, up to `WATCH_SECONDS`."""
        with self._translate_errors(key):
            index, item = await self._consul.kv.get(self._prefix + key, **_blocking(since))
            return int(index), None if item is None else self._entry(item)

    async def recurse(self, prefix: str, since: int | None = None) -> Listing:
        """Return all entries under `prefix`. With `since`, wait for another index, up to `WATCH_SECONDS`."""
        with self._translate_errors(prefix):
            index, items = await self._consul.kv.get(self._prefix + prefix, recurse=True, **_blocking(since))
            return Listing(index=int(index), entries=[self._entry(item) for item in items or ()])

    async def keys(self, prefix: str) -> Sequence[str]:
        """Return the keys under `prefix`, sorted."""
        return (await self.watch_keys(prefix, None))[1]

    async def watch_keys(self, prefix: str, since: int | None) -> tuple[int, Sequence[str]]:
        """Return the index and the keys under `prefix`. With `since`, wait for another index, up to `WATCH_SECONDS`."""
        with self._translate_errors(prefix):
            index, keys = await self._consul.kv.get(self._prefix + prefix, keys=True, **_blocking(since))
            return int(index), [key.removeprefix(self._prefix) for key in keys or ()]

    async def put(
        self, key: str, value: bytes, *, index: int | None = None, session: str | None = None
    ) -> bool:
        """Store a value. With `index`, only if the key has that index (0: if it does not exist); with `session`, only
        if that session holds the key or acquires it now. Return False if the value was not stored.

        Raises `ConsulSessionLost` if the session does not exist."""
        with self._translate_errors(key):
            stored: bool = await self._consul.kv.put(self._prefix + key, value, cas=index, acquire=session)
            return stored

    async def delete(self, key: str, *, index: int | None = None) -> bool:
        """Delete a key, if it exists; with `index`, only if the key has that index. Return False if it was not."""
        with self._translate_errors(key):
            deleted: bool = await self._consul.kv.delete(self._prefix + key, cas=index)
            return deleted

    async def delete_tree(self, prefix: str) -> None:
        """Delete all keys under `prefix`."""
        with self._translate_errors(prefix):
            await self._consul.kv.delete(self._prefix + prefix, recurse=True)

    async def transaction(self, operations: Sequence[Operation]) -> Sequence[Entry]:
        """Run all operations or none, and return the entries that they read.

        Raises `TransactionConflict` if an operation fails. Raises `TooLarge`, and sends nothing, if Consul would
        refuse the size."""
        payload = [{"KV": self._encoded(operation)} for operation in operations]
        size = len(json.dumps(payload))
        if size > TRANSACTION_BYTES_MAX or len(payload) > OPERATIONS_MAX:
            raise TooLarge(
                f"a Consul transaction of {size} bytes in {len(payload)} operations is too large; "
                f"allowed are {TRANSACTION_BYTES_MAX} bytes in {OPERATIONS_MAX} operations"
            )
        try:
            with self._translate_errors(operations[0].key):
                done = await self._consul.txn.put(payload)
                return [self._entry(_decoded(item["KV"])) for item in done["Results"] or ()]
        except _RolledBack as error:
            raise self._conflict(operations, error) from error.__cause__

    async def create_session(self, name: str, *, behavior: str, ttl_seconds: int) -> str:
        """Create a session. `behavior` is what happens to its keys when it ends: `release` or `delete`."""
        with self._translate_errors("a session"):
            # By default a session ends when its node is unhealthy, and its keys stay locked for 15 s after that.
            session: str = await self._consul.session.create(
                name, checks=[], lock_delay=0, behavior=behavior, ttl=ttl_seconds
            )
            return session

    async def renew_session(self, session: str) -> None:
        """Renew a session for another TTL. Raises `ConsulSessionLost` if it no longer exists."""
        with self._translate_errors("a session"):
            await self._consul.session.renew(session)

    async def destroy_session(self, session: str) -> None:
        """End a session, if it exists; its keys are released or deleted."""
        with self._translate_errors("a session"):
            await self._consul.session.destroy(session)

    def _entry(self, item: Mapping[str, Any]) -> Entry:
        return Entry(
            key=item["Key"].removeprefix(self._prefix),
            value=item["Value"] or b"",
            index=item["ModifyIndex"],
            session=item.get("Session"),
        )

    def _encoded(self, operation: Operation) -> Mapping[str, object]:
        encoded: dict[str, object] = {"Verb": operation.verb, "Key": self._prefix + operation.key}
        if operation.value is not None:
            encoded["Value"] = base64.b64encode(operation.value).decode()
        if operation.index is not None:
            encoded["Index"] = operation.index
        if operation.session is not None:
            encoded["Session"] = operation.session
        return encoded

    def _conflict(self, operations: Sequence[Operation], error: "_RolledBack") -> Conflict | Unavailable:
        failed = {failure["OpIndex"]: failure["What"] for failure in json.loads(error.body)["Errors"]}
        for position, reason in failed.items():
            if "permission denied" in reason.lower():
                return self._denied(operations[position].key)
        return TransactionConflict(operations, failed)

    def _denied(self, what: str) -> Unavailable:
        what = what if what == "a session" else self._prefix + what
        return Unavailable(f"the Consul token has no permission for {what}; see nomad/consul-policy.hcl")

    @contextmanager
    def _translate_errors(self, what: str) -> Iterator[None]:
        """Translate errors of python-consul2 to errors of this program. `what` is the subject of the request."""
        where = f"Consul at {self._http.address}"
        try:
            yield
        except (ACLPermissionDenied, ACLDisabled) as error:
            raise self._denied(what) from error
        except NotFound as error:
            raise ConsulSessionLost(f"the session does not exist in {where}: {error}") from error
        except ClientError as error:
            status, _, body = str(error).partition(" ")
            if status == "409":
                raise _RolledBack(body) from error
            raise Unavailable(f"{where} refused the request for {what}: {error}") from error
        except ConsulException as error:
            if "invalid session" in str(error):
                raise ConsulSessionLost(f"the session does not exist in {where}: {error}") from error
            kind = OutcomeUnknown if str(error).startswith("5") else Unavailable
            raise kind(f"{where} failed at the request for {what}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the server at {self._http.address} is not Consul: {error!r}") from error


class _RolledBack(Exception):
    def __init__(self, body: str) -> None:
        """`body` is Consul's answer, which names the operations that failed."""
        super().__init__(body)
        self.body = body


def _blocking(since: int | None) -> Mapping[str, object]:
    return {} if since is None else {"index": max(since, 1), "wait": f"{WATCH_SECONDS}s"}


def _decoded(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**item, "Value": base64.b64decode(item["Value"]) if item.get("Value") else b""}
