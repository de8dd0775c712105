"""After a restart: what earlier replicas left on this engine is taken over where it still runs, and removed where
nobody needs it."""

import logging
from collections.abc import Mapping, Sequence, Set

from attrs import frozen

from pyexec.domain.events import Event
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, CorruptLog, EngineError
from pyexec.ports import Engine, EventLog
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.runner import Runner
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)

REPLICA_LABEL = "pyexec.replica"


@frozen(kw_only=True)
class Recovery:
    """`labels` are those of every container of this deployment on this engine."""

    engine: Engine
    log: EventLog
    runner: Runner
    slots: Slots
    labels: Mapping[str, str]

    async def recover(self, alive: Set[str]) -> None:
        """Adopts the running programs of replicas that are not `alive`, and removes their other containers."""
        containers = await self.engine.list_containers(self.labels)
        orphans = {c for c, labels in containers.items() if labels.get(REPLICA_LABEL) not in alive}
        if not orphans:
            return
        for execution, events in await self._running():
            if execution.container in orphans and execution.owner not in alive:
                orphans.discard(execution.container)
                await self._adopt(execution, events, execution.container)
        for container in orphans:
            await self._remove(container)

    async def _running(self) -> Sequence[tuple[Execution, Sequence[Event]]]:
        found = []
        opened = await self.log.open_executions()
        for execution_id in opened.ids:
            try:
                events = await self.log.read(execution_id)
                execution = fold(execution_id, events)
            except CorruptLog as error:
                logger.error("%s is left alone: %s", execution_id, error)
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
        except Conflict as error:
            self.slots.release(slot)
            logger.info("%s has moved on meanwhile: %s", execution.id, error)

    async def _remove(self, container: str) -> None:
        try:
            await self.engine.remove_container(container)
        except EngineError as error:
            logger.error("container %s is left behind: %s", container[:12], error)
