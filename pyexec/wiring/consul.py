"""Open the stores of a cluster in Consul."""

import re
import secrets
from contextlib import AsyncExitStack

from pyexec.adapters.consul.blobs import ConsulBlobs
from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.index import InvalidKeyReporter
from pyexec.adapters.consul.kv import ConsulKV, Entry
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.adapters.consul.schema import DEPLOYMENT
from pyexec.adapters.consul.session_log import ConsulSessionLog
from pyexec.adapters.peers import HttpPeers
from pyexec.errors import SettingsError
from pyexec.metrics import Meter
from pyexec.settings import Settings
from pyexec.wiring.stores import Stores, open_object_blobs


async def open_consul(
    stack: AsyncExitStack, settings: Settings, address: str, replica: str, meter: Meter
) -> Stores:
    """Join the cluster at `address`. Raises `SettingsError`, or `Unavailable` if Consul does not answer."""
    kv = await stack.enter_async_context(ConsulKV(consul_config(settings, address), meter))
    deployment = await _deployment(kv)  # first, so that an unavailable Consul is reported once
    membership = await stack.enter_async_context(ConsulMembership.open(kv))
    invalid_keys = InvalidKeyReporter()
    log = await stack.enter_async_context(ConsulLog.open(kv, membership.fence, invalid_keys))
    peers = HttpPeers(membership, replica)
    stack.push_async_callback(peers.close)
    blobs = open_object_blobs(settings, deployment) or ConsulBlobs(kv, membership.fence, invalid_keys)
    return Stores(
        deployment=deployment,
        log=log,
        session_log=ConsulSessionLog(kv, membership.fence),
        blobs=blobs,
        membership=membership,
        peers=peers,
    )


def consul_config(settings: Settings, address: str) -> ConsulConfig:
    """Return how to connect to Consul at `address`, and the prefix of this deployment's keys."""
    return ConsulConfig(
        address=address,
        prefix=settings.consul_prefix,
        token=settings.consul_token,
        ca_file=settings.consul_ca_file,
        cert_file=settings.consul_cert_file,
    )


async def _deployment(kv: ConsulKV) -> str:
    """Return the id of the deployment; create it if this is the first server.

    Raises `SettingsError` if another program uses the prefix."""
    while True:
        _, entry = await kv.get(DEPLOYMENT)
        if entry is not None:
            return checked_deployment(entry)
        await kv.put(DEPLOYMENT, secrets.token_hex(8).encode(), index=0)


def checked_deployment(entry: Entry) -> str:
    """Return the deployment id that the key holds. Raises `SettingsError` if it holds something else."""
    if re.fullmatch(rb"[0-9a-f]{16}", entry.value) is None:
        raise SettingsError(
            f"the key {entry.key} below PYEXEC_CONSUL_PREFIX holds {entry.value[:40]!r}, which is not a deployment id: "
            "another program uses this prefix; set another one"
        )
    return entry.value.decode()
