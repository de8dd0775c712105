"""Whether Consul does for these settings what a server needs of it."""

import secrets
from collections.abc import Sequence
from time import perf_counter

import anyio

from pyexec.adapters.consul.http import SKEW_SECONDS_MAX
from pyexec.adapters.consul.kv import ConsulKV, create
from pyexec.adapters.consul.schema import DEPLOYMENT, REPLICAS
from pyexec.errors import ExecutorError, SettingsError, Unavailable
from pyexec.preflight.findings import Finding, failed, fine, warning
from pyexec.settings import Settings
from pyexec.wiring.stores import checked_deployment, consul_config

CHECKS = "checks/"
"""Where a check-up writes, for a moment."""
TTL_SECONDS = 10
MEND = (
    'set PYEXEC_CONSUL_ADDR and PYEXEC_CONSUL_TOKEN; docs/consul.md lists the permissions under "Permissions"'
)


async def check_consul(settings: Settings) -> Sequence[Finding]:
    """It answers, the token's rights suffice, and the prefix is ours. What is written is removed again."""
    if settings.consul_addr is None:
        return [
            fine("consul", "PYEXEC_CONSUL_ADDR is not set: this server stands alone, with the embedded log")
        ]
    try:
        async with ConsulKV(consul_config(settings, settings.consul_addr)) as kv:
            told = await _try(kv)
            skew = kv.clock.skew_seconds
    except SettingsError as error:
        return [failed("consul", error)]
    except ExecutorError as error:
        return [failed("consul", error, MEND)]
    found = fine("consul", f"{settings.consul_addr}, below {settings.consul_prefix}/: {told}")
    if abs(skew) > SKEW_SECONDS_MAX:
        return [
            found,
            warning("clock", f"Consul's is {-skew:+.0f} s from this machine's; let both follow one clock"),
        ]
    return [found]


async def _try(kv: ConsulKV) -> str:
    _, entry = await kv.get(DEPLOYMENT)
    if entry is not None:
        checked_deployment(entry)
    seconds = await _try_rights(kv)
    members = sum(entry.session is not None for entry in (await kv.recurse(REPLICAS)).entries)
    return f"sessions and transactions work, {seconds * 1000:.1f} ms each; {members} servers are there now"


async def _try_rights(kv: ConsulKV) -> float:
    """What a server does all the time: a session, a key of it, a transaction that creates, and their removal.

    Returns how long the transaction took, in seconds."""
    prefix = f"{CHECKS}{secrets.token_hex(8)}/"
    session = await kv.create_session("pyexec-check", behavior="delete", ttl_seconds=TTL_SECONDS)
    try:
        if not await kv.put(f"{prefix}held", b"", session=session):
            raise Unavailable("a new session could not take a new key")
        await kv.renew_session(session)
        begun = perf_counter()
        await kv.transaction([create(f"{prefix}created", b"")])
        seconds = perf_counter() - begun
        if len(await kv.keys(prefix)) != 2:
            raise Unavailable("what was written cannot be read")
    finally:
        with anyio.CancelScope(shield=True):
            await kv.destroy_session(session)
            await kv.delete_tree(prefix)
    return seconds
