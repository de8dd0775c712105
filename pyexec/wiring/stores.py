"""The stores of a server. A single server opens files in its data directory, or the blob store at PYEXEC_BLOB_URL."""

from contextlib import AsyncExitStack

from attrs import frozen

from pyexec.adapters.blobs.file_store import FileBlobs
from pyexec.adapters.single_member import NoPeers, SingleMember
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.ports import BlobStore, EventLog, Membership, Peers, SessionLog
from pyexec.settings import Settings


@frozen(kw_only=True)
class Stores:
    """The stores, as ports. `deployment` is the id of all servers that share them.

    `copy_id` is a random id if the stores are a copy, whose original another server may use."""

    deployment: str
    log: EventLog
    session_log: SessionLog
    blobs: BlobStore
    membership: Membership
    peers: Peers
    copy_id: str | None = None


async def open_embedded(stack: AsyncExitStack, settings: Settings) -> Stores:
    """Open the stores of a single server in its data directory."""
    log = await stack.enter_async_context(await EmbeddedLog.open(settings.data_dir))
    blobs = open_object_blobs(settings, log.deployment) or await FileBlobs.open(settings.data_dir / "blobs")
    return Stores(
        deployment=log.deployment,
        copy_id=log.copy_id,
        log=log,
        session_log=log.sessions,
        blobs=blobs,
        membership=SingleMember(),
        peers=NoPeers(),
    )


def open_object_blobs(settings: Settings, deployment: str) -> BlobStore | None:
    """Return the blob store at PYEXEC_BLOB_URL; None if it is not set. Raises `SettingsError` for a wrong URL."""
    if settings.blob_url is None:
        return None
    from pyexec.adapters.blobs.object_store import ObjectBlobs  # its library is needed by few servers

    return ObjectBlobs.at(settings.blob_url, deployment)
