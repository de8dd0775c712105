"""The checks of `/ready` and of the cluster's state. `/ready` checks the event log as well."""

from functools import partial
from pathlib import Path

from pyexec.adapters.data_dir import try_write
from pyexec.aio import SingleFlight, start_daemon_thread
from pyexec.errors import Unavailable
from pyexec.ports import Engine, Membership
from pyexec.services.replica_state import Checks
from pyexec.services.slots import Slots
from pyexec.wiring.services import SharedParts


def build_checks(shared: SharedParts, engine: Engine) -> Checks:
    """Return a function for each dependency, which raises if the dependency is unavailable."""
    data_dir = shared.settings.data_dir
    write = SingleFlight(partial(start_daemon_thread, partial(try_write, data_dir), "data directory"))
    return {
        "server": partial(_check_accepting, shared.slots),
        "docker": engine.check,
        "membership": partial(_check_member, shared.stores.membership),
        "data directory": partial(_check_data_dir, data_dir, write),
    }


async def _check_accepting(slots: Slots) -> None:
    """Raise `Unavailable` during shutdown."""
    if slots.closed:
        raise Unavailable("the server is shutting down and accepts no new work")


async def _check_member(membership: Membership) -> None:
    """Raise `Unavailable` while the Consul session is lost."""
    if not membership.is_member:
        raise Unavailable("Consul session lost; writes are suspended until it is renewed")


async def _check_data_dir(path: Path, write: SingleFlight) -> None:
    """Raise `Unavailable` if the server cannot write to this directory, for example because the disk is full.

    If the disk hangs, a caller can be cancelled, and later callers wait for the same write."""
    try:
        await write.wait()
    except OSError as error:
        raise Unavailable(f"cannot write to PYEXEC_DATA_DIR ({path}): {error.strerror}") from error
