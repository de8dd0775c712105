"""Choose the user id of a sandbox, so that all sandboxes on the engine have different ones.

See docs/design/docker-adapter.md."""

import json
import secrets
from collections.abc import Collection
from itertools import islice
from typing import Final

from aiodocker import Docker
from attrs import frozen

from pyexec.adapters.docker.client import translate_errors
from pyexec.errors import EngineError, SettingsError

CANDIDATES: Final = 32
"""How many of the lowest free ids are candidates. Few ids need few files in /etc (see etc_files.py); many make it
unlikely that two replicas choose the same one."""
MAPPED_IDS: Final = 65536
_ID_MAPS: Final = ("name=userns", "name=rootless")
_PREFIX: Final = "pyexec-uid-"


def check_mapped_ids(ids: range, security_options: Collection[str]) -> None:
    """Raise `SettingsError` if the engine maps user ids, and cannot map these.

    `security_options` are those that the engine reports. It reports no size of the map; 65,536 ids are the default."""
    mapped = any(option in _ID_MAPS for option in security_options)
    if mapped and ids[-1] >= MAPPED_IDS:
        raise SettingsError(
            f"PYEXEC_SANDBOX_UIDS is {ids[0]}-{ids[-1]}; this Docker engine maps user ids (userns-remap or rootless); "
            f"allowed: ids below {MAPPED_IDS}, such as 60000-60999"
        )


@frozen
class UserId:
    """A user id, and the name that the container must have. A second container cannot be created with the same name."""

    id: int
    container: str


@frozen
class UserIds:
    """The user ids of sandboxes on an engine. If there is only one id, all sandboxes share it."""

    _docker: Docker
    _ids: range

    def choose(self, used: Collection[int]) -> UserId:
        """Return an id that is not in `used`. Raises `EngineError` if there is none."""
        if len(self._ids) == 1:
            return UserId(self._ids[0], f"pyexec-{secrets.token_hex(8)}")
        free = list(islice((uid for uid in self._ids if uid not in used), CANDIDATES))
        if not free:
            raise EngineError(
                f"all {len(self._ids)} user ids of PYEXEC_SANDBOX_UIDS are used by sandboxes on this engine"
            )
        uid = secrets.choice(free)
        return UserId(uid, f"{_PREFIX}{uid}")

    async def list_used(self) -> Collection[int]:
        """Ask the engine for the ids of all sandboxes, those of other servers included."""
        filters = json.dumps({"name": [f"^/?{_PREFIX}"]})
        with translate_errors():
            found = await self._docker.containers.list(all=1, filters=filters)
        names = (name.lstrip("/") for container in found for name in container["Names"])
        numbers = (name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))
        return frozenset(int(number) for number in numbers if number.isdecimal())
