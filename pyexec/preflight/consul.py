"""Check Consul: it answers, the token has the permissions that a server needs, and no other program uses the prefix."""

import secrets
from collections.abc import Sequence
from time import perf_counter

import anyio

from pyexec.adapters.consul.http import SKEW_SECONDS_MAX
from pyexec.adapters.consul.kv import ConsulKV, create
from pyexec.adapters.consul.schema import DEPLOYMENT, REPLICAS
from pyexec.errors import ExecutorError, SettingsError, Unavailable
from pyexec.preflight.check_result import CheckResult, failed, ok, warning
from pyexec.settings import Settings
from pyexec.wiring.consul import checked_deployment, consul_config

CHECKS = "checks/"
"""The checks write below this key, and delete what they wrote."""
TTL_SECONDS = 10
FIX = (
    'set PYEXEC_CONSUL_ADDR and PYEXEC_CONSUL_TOKEN; docs/consul.md lists the permissions under "Permissions"'
)


async def check_consul(settings: Settings) -> Sequence[CheckResult]:
    """Use Consul as a server does: a session, a transaction, and their removal."""
    if settings.consul_addr is None:
        return [ok("consul", "not used (PYEXEC_CONSUL_ADDR is not set): single server, embedded event log")]
    try:
        async with ConsulKV(consul_config(settings, settings.consul_addr)) as kv:
            text = await _try_prefix(kv)
            skew = kv.clock.skew_seconds
    except SettingsError as error:
        return [failed("consul", error)]
    except ExecutorError as error:
        return [failed("consul", error, FIX)]
    passed = ok("consul", f"{settings.consul_addr}, keys below {settings.consul_prefix}/: {text}")
    if abs(skew) <= SKEW_SECONDS_MAX:
        return [passed]
    fix = "synchronize both clocks, for example with NTP"
    return [passed, warning("clock", f"Consul's clock differs from this machine's by {-skew:+.0f} s; {fix}")]


async def _try_prefix(kv: ConsulKV) -> str:
    _, entry = await kv.get(DEPLOYMENT)
    if entry is not None:
        checked_deployment(entry)
    seconds = await _try_transaction(kv)
    members = sum(entry.session is not None for entry in (await kv.recurse(REPLICAS)).entries)
    return f"sessions and transactions work, {seconds * 1000:.1f} ms for a transaction; replicas online: {members}"


async def _try_transaction(kv: ConsulKV) -> float:
    """Create a session, a key that it holds and a second key in a transaction; remove everything again.

    Return how long the transaction took, in seconds."""
    prefix = f"{CHECKS}{secrets.token_hex(8)}/"
    session = await kv.create_session("pyexec-check", behavior="delete", ttl_seconds=TTL_SECONDS)
    try:
        if not await kv.put(f"{prefix}held", b"", session=session):
            raise Unavailable("a new Consul session could not lock a new key")
        await kv.renew_session(session)
        begun = perf_counter()
        await kv.transaction([create(f"{prefix}created", b"")])
        seconds = perf_counter() - begun
        if len(await kv.keys(prefix)) != 2:
            raise Unavailable("Consul does not return the keys that were just written")
    finally:
        with anyio.CancelScope(shield=True):
            await kv.destroy_session(session)
            await kv.delete_tree(prefix)
    return seconds
