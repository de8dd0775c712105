"""After a restart: what earlier replicas left on this engine is taken over where it still runs, and removed where
nobody needs it."""

import logging
from collections.abc import Mapping, Sequence

import anyio
from attrs import frozen

from pyexec.aio import FailureLog
from pyexec.correlation import correlated
from pyexec.domain.events import Event
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, CorruptLog, EngineError, Unavailable
from pyexec.ports import Engine, EventLog, Members, Membership
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.runner import Runner
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)

REPLICA_LABEL = "pyexec.replica"
COMING_BACK_SECONDS = 5.0
RETRY_SECONDS = 1.0


@frozen(kw_only=True)
class Recovery:
    """`labels` are those of every container of this deployment on this engine."""

    engine: Engine
    log: EventLog
    runner: Runner
    slots: Slots
    membership: Membership
    corrupt_logs: CorruptLogReporter
    labels: Mapping[str, str]

    async def recover_first(self) -> None:
        """At the start: recovers what replicas left that are no members now, once log and engine both answer."""
        await self._recover_patiently()

    async def run(self) -> None:
        """Recovers what members leave behind that vanish while this one lives, until cancelled.

        One that comes back at once, with a new session, keeps what it has."""
        members = await self._members(None)
        while True:
            before = members
            members = await self._members(before.version)
            await self._look_again()
            if before.members.keys() - members.members.keys():
                await anyio.sleep(COMING_BACK_SECONDS)
                members = await self._members(None)
                await self._recover_patiently()

    async def _look_again(self) -> None:
        """The change may have been this replica's own coming back."""
        try:
            await self.runner.refresh()
        except Unavailable as error:
            logger.warning("what was taken over from this replica is seen at its end: %s", error)

    async def _recover_patiently(self) -> None:
        recovering = FailureLog(logger, "recovering what vanished replicas left")
        while True:
            try:
                await self.recover()
                return recovering.recovered()
            except (Unavailable, EngineError) as error:
                recovering.failed(error)
                await anyio.sleep(RETRY_SECONDS)

    async def _members(self, since: int | None) -> Members:
        looking = FailureLog(logger, "looking for vanished replicas")
        while True:
            try:
                members = await self.membership.members(since)
                looking.recovered()
                return members
            except Unavailable as error:
                looking.failed(error)
                await anyio.sleep(RETRY_SECONDS)

    async def recover(self) -> None:
        """Adopts the running programs of replicas that are no members now, and removes their other containers."""
        # In this order: who has a container was a member before, and who is alive is not taken for vanished.
        containers = await self.engine.list_containers(self.labels)
        alive = (await self.membership.members()).members.keys() | {self.runner.config.replica}
        orphans = {c for c, labels in containers.items() if labels.get(REPLICA_LABEL) not in alive}
        for execution, events in await self._running() if containers else ():
            if execution.container is None or execution.container not in containers:
                continue
            orphans.discard(execution.container)  # another one may have adopted what runs in it
            # Whose program it is the log tells, and not the container, which bears the name of who has started it.
            if execution.owner not in alive or self.runner.is_orphaned(execution):
                with correlated(execution.id, "async" if execution.payload else "sync"):
                    await self._adopt(execution, events, execution.container)
        for container in orphans:
            await self._remove(container)

    async def remove_own(self) -> None:
        """At the end: removes this replica's containers but those that run an execution which is still open.

        What cannot be told now is left: a program is bounded by its own alarm, and the next replica removes it."""
        with anyio.CancelScope(shield=True):
            try:
                own = await self.engine.list_containers(
                    {**self.labels, REPLICA_LABEL: self.runner.config.replica}
                )
                kept = {execution.container for execution, _ in await self._running()} if own else set()
            except (Unavailable, EngineError) as error:
                logger.warning("containers may be left, the next replica removes them: %s", error)
                return
            for container in own.keys() - kept:
                await self._remove(container)

    async def _running(self) -> Sequence[tuple[Execution, Sequence[Event]]]:
        found = []
        opened = await self.log.open_executions()
        for execution_id in opened.lengths:
            try:
                events = await self.log.read(execution_id)
                execution = fold(execution_id, events)
            except CorruptLog as error:
                self.corrupt_logs.report(execution_id, error)
                continue
            if execution.phase is Phase.RUNNING:
                found.append((execution, events))
        return found

    async def _adopt(self, execution: Execution, events: Sequence[Event], container: str) -> None:
        try:
            sandbox = await Sandbox.adopt(self.engine, container)
        except EngineError as error:
            logger.warning("%s cannot be adopted: %s", execution.id, error)
            return
        slot = self.slots.take_over(execution.spec.limits)
        try:
            await self.runner.adopt(execution, events, sandbox, slot)
            logger.info("%s is adopted; its program has gone on running", execution.id)
        except BaseException as error:
            self.slots.release(slot)
            with anyio.CancelScope(shield=True):
                await sandbox.detach()
            if isinstance(error, CorruptLog):
                self.corrupt_logs.report(execution.id, error)
            elif isinstance(error, Conflict):
                logger.info("%s has moved on meanwhile: %s", execution.id, error)
            else:
                raise

    async def _remove(self, container: str) -> None:
        try:
            await self.engine.remove_container(container)
        except EngineError as error:
            logger.error("container %s is left behind: %s", container[:12], error)
