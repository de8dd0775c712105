"""Recover what vanished replicas left on this engine: adopt running programs, remove all other containers."""

import logging
from collections.abc import Collection, Mapping, Sequence, Set
from functools import partial

import anyio
from attrs import frozen

from pyexec.aio import FailureLog, retry
from pyexec.correlation import correlated
from pyexec.domain.events import Event, Running
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, ContainerGone, CorruptLog, EngineError, Unavailable
from pyexec.ports import Engine, EventLog, Member, Members, Membership
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.in_doubt import InDoubtResolver
from pyexec.services.peer_monitor import PeerMonitor
from pyexec.services.runner import Runner
from pyexec.services.sessions.recovery import SessionRecovery
from pyexec.services.slots import Slots

logger = logging.getLogger(__name__)

REPLICA_LABEL = "pyexec.replica"
RETURN_SECONDS = 5.0
"""How long a replica that lost its Consul session may take to return with a new one. Its runs are not adopted before
that, unless its process is gone."""
RETRY_SECONDS = 1.0
REACH_SECONDS = 20.0
"""How long to retry the adoption of programs that the engine does not let this replica follow. Equals the default of
PYEXEC_ADOPTION_GRACE, after which the leader ends them as lost."""


@frozen(kw_only=True)
class Recovery:
    """Recovers for one replica. `labels` are those of every container of this deployment on this engine."""

    engine: Engine
    log: EventLog
    runner: Runner
    sessions: SessionRecovery
    in_doubt: InDoubtResolver
    slots: Slots
    membership: Membership
    peer_monitor: PeerMonitor
    corrupt_logs: CorruptLogReporter
    labels: Mapping[str, str]

    async def recover_with_retries(self) -> None:
        """Recover what former members left. Retry while the log or the engine does not answer, and for some time if
        only some programs cannot be reached."""
        failures = FailureLog(logger, "recovering what vanished replicas left")
        give_up_at = anyio.current_time() + REACH_SECONDS
        while True:
            unreached = await retry(self.recover, failures, errors=(Unavailable, EngineError))
            if not unreached:
                return
            if anyio.current_time() >= give_up_at:
                logger.error(
                    "giving up the adoption of %s: the engine does not return their containers",
                    ", ".join(unreached),
                )
                return
            await anyio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Recover whenever a member vanishes, until cancelled."""
        members = await self._members(None)
        async with anyio.create_task_group() as probes:
            while True:
                self.peer_monitor.update(members.members, probes)
                before = members
                members = await self._members(before.version)
                await self._refresh()
                if vanished := before.members.keys() - members.members.keys():
                    await self._wait_for_return([before.members[name] for name in vanished])
                    members = await self._members(None)
                    await self.recover_with_retries()

    async def _wait_for_return(self, vanished: Collection[Member]) -> None:
        """Give vanished replicas `RETURN_SECONDS` to return. Skip the wait if all their processes are gone."""
        with anyio.move_on_after(RETURN_SECONDS):
            if not await self.peer_monitor.are_gone(vanished):
                await anyio.sleep_forever()

    async def _refresh(self) -> None:
        """Check this replica's own runs: the change of members may be its own return."""
        try:
            await self.in_doubt.refresh()
            await self.sessions.sessions.refresh()
        except Unavailable as error:
            logger.warning(
                "cannot check for runs that other replicas adopted; each is checked at its end: %s", error
            )

    async def _members(self, since: int | None) -> Members:
        failures = FailureLog(logger, "watching for vanished replicas")
        return await retry(partial(self.membership.members, since), failures)

    async def recover(self) -> Collection[str]:
        """Adopt the sessions and running programs of replicas that are not members, and remove their other containers.

        Return the executions whose programs could not be reached."""
        await self.sessions.adopt_orphans(await self._alive())
        # List containers before members: a replica joins before it starts containers, so the list of members includes
        # the owner of each container if it is alive.
        containers = await self.engine.list_containers(self.labels)
        alive = await self._alive()
        orphans = {c for c, labels in containers.items() if labels.get(REPLICA_LABEL) not in alive}
        orphans -= await self.sessions.containers_in_use()
        unreached = []
        for execution, events in await self._running() if containers else ():
            if execution.container is None or execution.container not in containers:
                continue
            orphans.discard(execution.container)  # another replica may have adopted its program
            # The log names the owner. The container's label names the replica that started it.
            if execution.owner not in alive or self.in_doubt.is_orphaned(execution):
                mode = "async" if execution.payload else "sync"
                with correlated(execution.id, mode, execution.spec.tenant):
                    if not await self._adopt(execution, events, execution.container):
                        unreached.append(execution.id)
        for container in orphans:
            await self._remove(container)
        return unreached

    async def _alive(self) -> Set[str]:
        return (await self.membership.members()).members.keys() | {self.runner.replica}

    async def remove_own(self) -> None:
        """At shutdown, remove this replica's containers, except those that run an open execution.

        If the log or the engine does not answer, they stay: the supervisor ends each program at its deadline, and the
        next replica on this engine removes the containers."""
        with anyio.CancelScope(shield=True):
            try:
                own = await self.engine.list_containers({**self.labels, REPLICA_LABEL: self.runner.replica})
                kept = await self._containers_in_use() if own else set()
            except (Unavailable, EngineError) as error:
                logger.warning("cannot remove this replica's containers; the next one will: %s", error)
                return
            for container in own.keys() - kept:
                await self._remove(container)

    async def _containers_in_use(self) -> Set[str | None]:
        """Return the containers of running programs and of open sessions."""
        programs = {execution.container for execution, _ in await self._running()}
        return programs | await self.sessions.containers_in_use()

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
            if execution.phase is Phase.RUNNING and execution.spec.session_id is None:
                found.append((execution, events))
        return found

    async def _adopt(self, execution: Execution, events: Sequence[Event], container: str) -> bool:
        """Adopt a program. Return False if the engine does not answer; the leader ends a program that is gone."""
        try:
            nonce = next(event.nonce for event in reversed(events) if isinstance(event, Running))
            sandbox = await Sandbox.adopt(self.engine, container, nonce)
        except EngineError as error:
            logger.warning("cannot adopt %s: %s", execution.id, error)
            return isinstance(error, ContainerGone)
        spec = execution.spec
        slot = self.slots.reserve_unconditionally(spec.limits, spec.tenant)
        try:
            await self.runner.adopt(execution, events, sandbox, slot)
            logger.info("adopted %s; its program kept running", execution.id)
        except BaseException as error:
            self.slots.release(slot)
            with anyio.CancelScope(shield=True):
                await sandbox.detach()
            if isinstance(error, CorruptLog):
                self.corrupt_logs.report(execution.id, error)
            elif isinstance(error, Conflict):
                logger.info("%s: append conflict: %s", execution.id, error)
            else:
                raise
        return True

    async def _remove(self, container: str) -> None:
        try:
            await self.engine.remove_container(container)
        except EngineError as error:
            logger.error("cannot remove the container %s: %s", container[:12], error)
