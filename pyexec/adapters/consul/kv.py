"""Consul's keys, transactions and sessions, with our types and errors. Nothing else imports `consul`."""

import base64
import json
import ssl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import consul.aio
from attrs import frozen
from consul.base import ACLDisabled, ACLPermissionDenied, ClientError, ConsulException, NotFound
from yarl import URL

from pyexec.adapters.consul.http import WATCH_SECONDS, PooledHTTP, Unanswered
from pyexec.errors import Conflict, ConsulSessionLost, SettingsError, TooLarge, Unavailable
from pyexec.metrics import NOOP_METER, Meter

TRANSACTION_BYTES_MAX: Final = 384 * 1024
"""Consul 1.8 takes 512 KiB, yet breaks the connection at times well below."""
OPERATIONS_MAX: Final = 64


@frozen(kw_only=True)
class ConsulConfig:
    """Where Consul answers (`host:port`, `http://…` or `https://…`) and what of its keys is ours.

    `ca_file` holds the authorities that its certificate may come from, beside those of the machine;
    `cert_file` holds our own certificate and its key, where Consul asks for one."""

    address: str
    prefix: str = "pyexec"
    token: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None

    def url(self) -> URL:
        """The address; raises `SettingsError` for one that cannot be used."""
        try:
            named = "://" in self.address
            url = URL(self.address if named else f"http://{self.address}")
            port = url.port if named else url.explicit_port
            usable = url.scheme in ("http", "https") and url.host and port and url.path == "/"
        except ValueError:
            usable = None
        if not usable:
            raise SettingsError(
                f"PYEXEC_CONSUL_ADDR is {self.address!r}; allowed are host:port, http://host:port and https://host:port"
            )
        return url

    def tls(self) -> ssl.SSLContext | None:
        """How to speak TLS; None where Consul is asked in the clear."""
        if self.url().scheme != "https":
            return None
        try:
            context = ssl.create_default_context()
            if self.ca_file is not None:
                context.load_verify_locations(self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file)
        except OSError as error:  # an ssl.SSLError is one, too
            raise SettingsError(f"the certificates for Consul cannot be read: {error}") from error
        return context


@frozen(kw_only=True)
class Entry:
    """A key, without our prefix, and what is stored under it; `session` is the one that holds it."""

    key: str
    value: bytes
    index: int
    session: str | None


@frozen(kw_only=True)
class Listing:
    """All entries whose keys begin alike, in the order of their keys, at an index of the store."""

    index: int
    entries: Sequence[Entry]


@frozen(kw_only=True)
class Operation:
    """One step of a transaction, by the name that Consul gives it."""

    verb: str
    key: str
    value: bytes | None = None
    index: int | None = None
    session: str | None = None


def create(key: str, value: bytes) -> Operation:
    """Fails when the key exists."""
    return Operation(verb="cas", key=key, value=value, index=0)


class TransactionLost(Conflict):
    """A transaction was refused as a whole; `failed` holds the reasons by the positions of the operations."""

    def __init__(self, operations: Sequence[Operation], failed: Mapping[int, str]) -> None:
        self.failed = failed
        reasons = [f"{operations[at].verb} {operations[at].key}: {why}" for at, why in failed.items()]
        super().__init__(f"Consul refused a transaction: {'; '.join(reasons)}")


class _Client(consul.aio.Consul):  # type: ignore[misc]  # it has no types
    """python-consul2, over our connections. It prefers the environment's CONSUL_HTTP_… to what it is given."""

    def __init__(self, http: PooledHTTP, token: str | None) -> None:
        self._pooled = http
        with warnings.catch_warnings():
            # It makes all its endpoints at once, those that it deprecates as well.
            warnings.simplefilter("ignore", DeprecationWarning)
            # Else a Consul that has just restarted answers before it has read its own log: as if nothing had been.
            super().__init__(consistency="consistent")
        self.token = token

    def http_connect(self, *_: object, **__: object) -> PooledHTTP:
        return self._pooled


class ConsulKV:
    """The keys under one prefix. `open` it, and `close` it or use it as a context manager.

    Every method raises `Unavailable` when Consul does not answer or refuses, and its kind `Unanswered` when it
    is unknown whether it has done what was asked."""

    def __init__(self, config: ConsulConfig, meter: Meter = NOOP_METER) -> None:
        """Within a running event loop; asks nothing yet. Raises `SettingsError` for what cannot be used."""
        self._prefix = f"{config.prefix.strip('/')}/"
        self._http = PooledHTTP(config.url(), config.tls(), meter)
        self.clock = self._http.clock
        with self._translated("the environment's CONSUL_HTTP_ADDR"):
            self._consul = _Client(self._http, config.token)

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def sent(self) -> Mapping[str, int]:
        """How many requests were sent so far, by method and endpoint, such as `PUT txn`."""
        return self._http.sent

    async def get(self, key: str, since: int | None = None) -> tuple[int, Entry | None]:
        """The index, and the entry if there is one: now, or once the index is not `since`, or after a while."""
        with self._translated(key):
            index, item = await self._consul.kv.get(self._prefix + key, **_blocking(since))
            return int(index), None if item is None else self._entry(item)

    async def recurse(self, prefix: str, since: int | None = None) -> Listing:
        """Everything under `prefix`: now, or once the index is not `since`, or after a while."""
        with self._translated(prefix):
            index, items = await self._consul.kv.get(self._prefix + prefix, recurse=True, **_blocking(since))
            return Listing(index=int(index), entries=[self._entry(item) for item in items or ()])

    async def keys(self, prefix: str) -> Sequence[str]:
        """The keys under `prefix`, in order."""
        with self._translated(prefix):
            _, keys = await self._consul.kv.get(self._prefix + prefix, keys=True)
            return [key.removeprefix(self._prefix) for key in keys or ()]

    async def put(
        self, key: str, value: bytes, *, index: int | None = None, session: str | None = None
    ) -> bool:
        """Stores a value: at any rate, or if the key's index is `index` (0: if there is no such key), or if
        `session` holds the key or can take it. False when it was not stored.

        Raises `ConsulSessionLost` when there is no such session."""
        with self._translated(key):
            stored: bool = await self._consul.kv.put(self._prefix + key, value, cas=index, acquire=session)
            return stored

    async def delete(self, key: str, *, index: int | None = None) -> bool:
        """Removes a key: at any rate, or if its index is `index`. Fine when there is no such key."""
        with self._translated(key):
            gone: bool = await self._consul.kv.delete(self._prefix + key, cas=index)
            return gone

    async def delete_tree(self, prefix: str) -> None:
        """Removes everything under `prefix`."""
        with self._translated(prefix):
            await self._consul.kv.delete(self._prefix + prefix, recurse=True)

    async def transaction(self, operations: Sequence[Operation]) -> Sequence[Entry]:
        """Does all operations or none, and returns the entries that they found.

        Raises `TransactionLost`, and `TooLarge` for what Consul would not take, before it is sent."""
        payload = [{"KV": self._encoded(operation)} for operation in operations]
        size = len(json.dumps(payload))
        if size > TRANSACTION_BYTES_MAX or len(payload) > OPERATIONS_MAX:
            raise TooLarge(
                f"this takes {size} bytes in {len(payload)} operations of one Consul transaction; "
                f"at most {TRANSACTION_BYTES_MAX} bytes in {OPERATIONS_MAX} operations fit"
            )
        try:
            with self._translated(operations[0].key):
                done = await self._consul.txn.put(payload)
                return [self._entry(_decoded(item["KV"])) for item in done["Results"] or ()]
        except _Refused as refusal:
            raise self._lost(operations, refusal) from refusal.__cause__

    async def create_session(self, name: str, *, behavior: str, ttl_seconds: int) -> str:
        """A new session; `behavior` says whether its keys are `release`d or `delete`d when it ends."""
        with self._translated("a session"):
            # Without checks of its own it would end with the agent's health; without lock delay others wait.
            session: str = await self._consul.session.create(
                name, checks=[], lock_delay=0, behavior=behavior, ttl=ttl_seconds
            )
            return session

    async def renew_session(self, session: str) -> None:
        """Lets it live for another term; raises `ConsulSessionLost` when it has ended."""
        with self._translated("a session"):
            await self._consul.session.renew(session)

    async def destroy_session(self, session: str) -> None:
        """Ends it, and what it holds is released or deleted; fine when it has ended."""
        with self._translated("a session"):
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

    def _lost(self, operations: Sequence[Operation], refusal: "_Refused") -> Conflict | Unavailable:
        failed = {error["OpIndex"]: error["What"] for error in json.loads(refusal.body)["Errors"]}
        for at, why in failed.items():
            if "permission denied" in why.lower():
                return self._denied(operations[at].key)
        return TransactionLost(operations, failed)

    def _denied(self, what: str) -> Unavailable:
        what = what if what == "a session" else self._prefix + what
        return Unavailable(f"the token lacks rights on {what} in Consul at {self._http.address}")

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """python-consul2's errors end here. `what` was asked about."""
        where = f"Consul at {self._http.address}"
        try:
            yield
        except (ACLPermissionDenied, ACLDisabled) as error:
            raise self._denied(what) from error
        except NotFound as error:
            raise ConsulSessionLost(f"{where} knows no such session: {error}") from error
        except ClientError as error:
            status, _, body = str(error).partition(" ")
            if status == "409":
                raise _Refused(body) from error
            raise Unavailable(f"{where} refuses {what}: {error}") from error
        except ConsulException as error:
            if "invalid session" in str(error):
                raise ConsulSessionLost(f"{where} knows no such session: {error}") from error
            kind = Unanswered if str(error).startswith("5") else Unavailable
            raise kind(f"{where} failed at {what}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"what answers at {self._http.address} is not Consul: {error!r}") from error


class _Refused(Exception):
    """A transaction's operations do not hold; `body` says which."""

    def __init__(self, body: str) -> None:
        super().__init__(body)
        self.body = body


def _blocking(since: int | None) -> Mapping[str, object]:
    return {} if since is None else {"index": max(since, 1), "wait": f"{WATCH_SECONDS}s"}


def _decoded(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**item, "Value": base64.b64decode(item["Value"]) if item.get("Value") else b""}
