"""Open the stores that the settings name: embedded files for a single server, Consul for a cluster."""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from attrs import frozen

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.adapters.blobs.object_store import ObjectBlobs
from pyexec.adapters.consul.blobs import ConsulBlobs
from pyexec.adapters.consul.index import InvalidKeyReporter
from pyexec.adapters.consul.kv import ConsulConfig, ConsulKV, Entry
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.adapters.consul.schema import DEPLOYMENT
from pyexec.adapters.data_dir import create_data_dir
from pyexec.adapters.peers import HttpPeers
from pyexec.adapters.single_member import NoPeers, SingleMember
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.errors import SettingsError
from pyexec.metrics import Meter
from pyexec.ports import BlobStore, EventLog, Membership, Peers
from pyexec.settings import Settings


@frozen(kw_only=True)
class Stores:
    """The stores, as ports. `deployment` is the id of all servers that share them."""

    deployment: str
    log: EventLog
    blobs: BlobStore
    membership: Membership
    peers: Peers


@asynccontextmanager
async def open_stores(settings: Settings, replica: str, meter: Meter) -> AsyncIterator[Stores]:
    """Open the stores. Raises `SettingsError`, or `Unavailable` if a store does not answer."""
    async with AsyncExitStack() as stack:
        create_data_dir(settings.data_dir)
        if settings.consul_addr is None:
            yield await _open_embedded(stack, settings)
        else:
            yield await _open_consul(stack, settings, settings.consul_addr, replica, meter)


async def _open_embedded(stack: AsyncExitStack, settings: Settings) -> Stores:
    log = await stack.enter_async_context(await EmbeddedLog.open(settings.data_dir))
    blobs: BlobStore
    if settings.blob_url is not None:
        blobs = ObjectBlobs.at(settings.blob_url, log.deployment)
    else:
        blobs = await FileBlobs.open(settings.data_dir / "blobs")
    return Stores(deployment=log.deployment, log=log, blobs=blobs, membership=SingleMember(), peers=NoPeers())


async def _open_consul(
    stack: AsyncExitStack, settings: Settings, address: str, replica: str, meter: Meter
) -> Stores:
    kv = await stack.enter_async_context(ConsulKV(consul_config(settings, address), meter))
    deployment = await _deployment(kv)  # first, so that an unavailable Consul is reported once
    membership = await stack.enter_async_context(ConsulMembership.open(kv))
    invalid_keys = InvalidKeyReporter()
    log = await stack.enter_async_context(ConsulLog.open(kv, membership.fence, invalid_keys))
    peers = HttpPeers(membership, replica)
    stack.push_async_callback(peers.close)
    blobs: BlobStore = ConsulBlobs(kv, membership.fence, invalid_keys)
    if settings.blob_url is not None:
        blobs = ObjectBlobs.at(settings.blob_url, deployment)
    return Stores(deployment=deployment, log=log, blobs=blobs, membership=membership, peers=peers)


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
