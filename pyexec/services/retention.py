"""Keep the stores small and consistent: delete old executions, rebuild indexes, remove unfinished uploads."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

import anyio
from attrs import frozen

from pyexec.aio import FailureLog
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.metrics import NOOP_METER, WEBHOOKS_DROPPED, Meter
from pyexec.ports import BlobStore, EventLog, Member
from pyexec.services.clock import now
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.output_store import files_blob, output_blob, payload_blob

logger = logging.getLogger(__name__)

BATCH = 100
MAINTENANCE_SECONDS = 3600.0


@frozen(kw_only=True)
class Retention:
    """Deletes and repairs stored data. Only the leader runs it."""

    log: EventLog
    blobs: BlobStore
    corrupt_logs: CorruptLogReporter
    ttl_seconds: float
    webhook_seconds: float
    meter: Meter = NOOP_METER

    async def retire_ended(self) -> None:
        """Delete executions that ended more than `ttl_seconds` ago, until cancelled.

        One with an outstanding webhook is kept for at least `webhook_seconds`. Then the webhook is dropped."""
        failures = FailureLog(logger, "deleting old executions")
        pause = max(1.0, min(30.0, self.ttl_seconds / 10))
        while True:
            try:
                due = await self._due()
                outstanding = (await self.log.webhooks()).receivers if due else {}
                for execution_id in due:
                    await self._retire(execution_id)
                    if execution_id in outstanding:
                        self._report_dropped(execution_id, outstanding[execution_id])
                await self.log.erase_retired()
                failures.recovered()
            except Unavailable as error:
                failures.failed(error)
                due = ()
            if len(due) < BATCH:
                await anyio.sleep(pause)

    async def rebuild_indexes(self, members: Mapping[str, Member]) -> None:
        """Rebuild the indexes from the events, and remove uploads that no member will finish."""
        try:
            for execution_id, error in (await self.log.rebuild_index()).items():
                self.corrupt_logs.report(execution_id, error)
            logger.info("indexes rebuilt from the events")
            await self.sweep(members)
        except Unavailable as error:
            logger.error("indexes not rebuilt; the next attempt is in %g s: %s", MAINTENANCE_SECONDS, error)

    async def sweep(self, members: Mapping[str, Member]) -> None:
        """Remove blobs of executions that do not exist, unless one of `members` may still be uploading them."""
        await self.blobs.sweep(members.keys(), self._exists)

    async def _due(self) -> Sequence[str]:
        at, longest = now(), max(self.ttl_seconds, self.webhook_seconds)
        return await self.log.list_ended(
            at - timedelta(seconds=self.ttl_seconds),
            BATCH,
            undelivered_before=at - timedelta(seconds=longest),
        )

    def _report_dropped(self, execution_id: str, receiver: str) -> None:
        self.meter.count(WEBHOOKS_DROPPED)
        logger.error(
            "webhook of %s to %s dropped: not delivered within PYEXEC_WEBHOOK_MAX_AGE (%g s)",
            execution_id,
            receiver,
            self.webhook_seconds,
        )

    async def _exists(self, execution_id: str) -> bool:
        try:
            return bool(await self.log.read(execution_id))
        except CorruptLog:
            return True

    async def _retire(self, execution_id: str) -> None:
        """Delete the blobs, then the log. In this order, an interrupted deletion can be repeated."""
        try:
            for blob in (payload_blob, output_blob, files_blob):
                await self.blobs.delete(blob(execution_id))
            await self.log.retire(execution_id)
        except CorruptLog as error:
            self.corrupt_logs.report(execution_id, error)
        except Conflict as error:
            logger.error("%s is not deleted, because its index entry is wrong: %s", execution_id, error)
