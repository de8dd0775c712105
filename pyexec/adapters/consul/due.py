"""Finding what has ended long ago, at a cost that does not grow with all that is retained."""

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Final

import anyio

from pyexec.adapters.consul.index import Complaints, Ended, read_ends
from pyexec.adapters.consul.keys import STATUS
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.codec import timestamp
from pyexec.domain.ids import created_ms, id_prefix, is_execution_id

BUCKET_BITS: Final = 16
"""Ids begin with the millisecond of their creation; those that share all but its last 16 bits, about a minute, share
a prefix, and are listed together."""
BUCKETS_MAX: Final = 60
COMPLETE_SECONDS: Final = 600.0


class Due:
    """What ended before a moment was created before it, and ids sort by their creation. So only those are looked at
    that have become old enough since the last look, and those that were open then.

    An execution that comes to be more than a minute after its id was made, as with a long upload, or that was made
    by a clock that is late, may be overlooked; every ten minutes all are listed."""

    def __init__(self, kv: ConsulKV, complaints: Complaints) -> None:
        self._kv = kv
        self._complaints = complaints
        self._old: dict[str, Ended | None] = {}
        self._bucket = 0
        self._complete_at = -inf

    async def before(self, moment: datetime, limit: int) -> Sequence[str]:
        """At most `limit` that ended before `moment`, oldest end first."""
        last = _bucket(round(moment.timestamp() * 1000))
        await self._look(last)
        await self._look_at_open()
        until = timestamp(moment)
        due = [
            (end.finished_at, i)
            for i, end in self._old.items()
            if end is not None and end.finished_at < until
        ]
        return [execution_id for _, execution_id in sorted(due)[:limit]]

    def forget(self, execution_id: str) -> None:
        """It is retired."""
        self._old.pop(execution_id, None)

    async def _look(self, last: int) -> None:
        """Takes in what was created up to a bucket."""
        now = anyio.current_time()
        if now - self._complete_at >= COMPLETE_SECONDS or last - self._bucket > BUCKETS_MAX:
            old = [
                execution_id
                for execution_id in await self._ids("")
                if _bucket(created_ms(execution_id)) <= last
            ]
            self._old = {execution_id: self._old.get(execution_id) for execution_id in old}
            self._bucket, self._complete_at = last, now
            return
        for bucket in range(self._bucket - 1, last + 1):
            for execution_id in await self._ids(id_prefix(bucket << BUCKET_BITS, BUCKET_BITS)):
                self._old.setdefault(execution_id, None)
            self._bucket = max(self._bucket, bucket)

    async def _ids(self, prefix: str) -> Sequence[str]:
        ids = [key.removeprefix(STATUS) for key in await self._kv.keys(f"{STATUS}{prefix}")]
        return [execution_id for execution_id in ids if is_execution_id(execution_id)]

    async def _look_at_open(self) -> None:
        """An end never changes, so each is read only once; what is not there any more is retired."""
        still_open = [execution_id for execution_id, end in self._old.items() if end is None]
        found = await read_ends(self._kv, self._complaints, still_open)
        for execution_id in still_open:
            if execution_id in found:
                self._old[execution_id] = found[execution_id]
            else:
                del self._old[execution_id]


def _bucket(milliseconds: int) -> int:
    return milliseconds >> BUCKET_BITS
