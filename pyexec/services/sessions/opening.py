"""Open a session: find or build its environment, reserve memory, take a sandbox, start the interpreter."""

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
from attrs import evolve, field, frozen

from pyexec.aio import FailureLog, retry
from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.environment import Recipe, session_image_error, session_recipe
from pyexec.domain.session import Session, fold_session
from pyexec.domain.session_events import CloseReason, SessionClosed, SessionOpened, SessionPlaced
from pyexec.domain.spec import MEBIBYTE, Limits, SessionSpec, Spec
from pyexec.errors import (
    Conflict,
    EngineError,
    ExecutorError,
    InvalidRequest,
    NoSessionMemory,
    NotWritten,
    SandboxBroken,
    SandboxRefused,
    SetupFailed,
    Unavailable,
)
from pyexec.ports import Engine, SessionLog
from pyexec.sandbox.pool.kind_queue import SandboxKind
from pyexec.sandbox.pool.pool import Pool
from pyexec.sandbox.session_protocol import SessionPlan
from pyexec.sandbox.session_sandbox import SessionSandbox
from pyexec.services.clock import new_session_id, nonce, now
from pyexec.services.preparation import Preparation, kind_of
from pyexec.services.reservation import Reservation
from pyexec.services.sessions.cells import CellRunner
from pyexec.services.sessions.owned_log import OwnedLog
from pyexec.services.sessions.owned_session import OwnedSession
from pyexec.services.setup_lane import SetupLane, setup_key
from pyexec.services.slots import Slots
from pyexec.services.upload_rate import reject_slow
from pyexec.services.uploads import archive_error

INSTALLATION_DISABLED = "package installation is disabled (PYEXEC_SETUP_NETWORK=none)"
RECOMMENDED_CPUS = 0.1
"""With fewer processors, IPython may not start in time: it takes about 1 s of processor time (2026-11-28)."""

logger = logging.getLogger(__name__)

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]], str], None]
"""Starts a task with a name, which ends with this replica."""


@frozen(kw_only=True)
class Opening:
    """Opens and adopts sessions for `replica`, on the engine with the id `engine`.

    `buffer_mb` is the memory of a session's supervisor in addition to that of other sandboxes. The memory of one run
    with `run_limits` stays free: otherwise open sessions could block all runs."""

    replica: str
    engine: str
    log: SessionLog
    pool: Pool
    sandbox_engine: Engine
    preparation: Preparation
    slots: Slots
    lane: SetupLane
    cells: CellRunner
    members_max: int
    setup_allowed: bool
    buffer_mb: int
    run_limits: Limits
    queue_timeout_seconds: float
    pending: set[str] = field(factory=set, init=False)
    """The ids of sessions whose first append is in progress, or that are in the log but not served yet."""

    async def open(
        self, spec: SessionSpec, archive: AsyncIterator[bytes] | None, spawn: Spawn
    ) -> OwnedSession:
        """Open a session with the files of `archive`, a tar. If this fails, nothing is left behind; if the log did not
        confirm the session, a task of `spawn` closes it.

        Raises `InvalidRequest`, `NoSessionMemory`, `ImageUnavailable`, `EngineError` or `Unavailable`."""
        self.slots.check_fits(spec.limits)
        kind = await self._kind(spec)
        async with AsyncExitStack() as undo:
            memory_mb = self.slots.try_reserve_memory(
                spec.limits, self.buffer_mb, spec.tenant, keep=self.run_limits
            )
            if memory_mb is None:
                raise self._no_memory(spec.limits)
            undo.callback(self.slots.release_memory, memory_mb, spec.tenant)
            sandbox = await self._take(kind, spec)
            undo.push_async_callback(_remove, sandbox)
            await self._unpack(sandbox, spec, archive)
            opened, placed = self._events(spec, sandbox)
            session = fold_session(new_session_id(), [opened, placed])
            try:
                await sandbox.open(session_plan(spec), session.generation)
            except SandboxRefused as error:
                _check_cpus(spec.limits, error)
                text = f"the interpreter of the session cannot start: {error}"
                if error.code == "no_interpreter" and not self.setup_allowed:
                    text = session_image_error(spec.docker_image, INSTALLATION_DISABLED)
                field_name = "env_vars" if error.code == "bad_variables" else "docker_image"
                raise InvalidRequest(text, field=field_name) from error
            except (SandboxBroken, EngineError) as error:
                _check_cpus(spec.limits, error)
                raise Unavailable(f"the sandbox broke before the session was open: {error}") from error
            undo.callback(self.pending.discard, session.id)
            self.pending.add(session.id)
            try:
                with anyio.CancelScope(shield=True):
                    await self.log.append(session.id, 0, [opened, placed])
            except NotWritten:
                raise
            except Unavailable:
                spawn(partial(self._close_later, session.id, opened), f"close {session.id}")
                raise
            undo.pop_all()
        return self.own(session, sandbox, memory_mb)

    def own(self, session: Session, sandbox: SessionSandbox, memory_mb: int) -> OwnedSession:
        """Return a session that this replica owns now. It gives the memory back at its end."""
        sandbox.image = session.image
        log = OwnedLog(self.replica, self.log, session)
        release = partial(self.slots.release_memory, memory_mb, session.spec.tenant)
        return OwnedSession(log, sandbox, self.cells, release)

    def _no_memory(self, limits: Limits) -> NoSessionMemory:
        memory_mb = self.slots.memory_for(limits) + self.buffer_mb
        overhead_mb = memory_mb - limits.memory_mb - limits.disk_mb
        budget, kept_mb = self.slots.memory_mb, self.slots.kept_free(self.run_limits, self.buffer_mb)
        return NoSessionMemory(
            f"the session reserves {memory_mb} MiB (memory_mb {limits.memory_mb} + disk_mb {limits.disk_mb} + overhead "
            f"{overhead_mb}), and {kept_mb} MiB must stay free for a run; this replica "
            f"has {budget.total - budget.used} of {budget.total} MiB free (PYEXEC_MAX_TOTAL_MEMORY_MB). Ask for less "
            "with config.memory_mb and config.disk_mb, close a session, or try again later"
        )

    async def _close_later(self, session_id: str, opened: SessionOpened) -> None:
        failures = FailureLog(logger, f"closing {session_id}, whose first events were not confirmed")
        try:
            close = partial(self._close_unconfirmed, session_id, opened)
            await retry(close, failures, errors=(Unavailable, Conflict))
        except ExecutorError as error:
            logger.error(
                "session %s, whose first events were not confirmed, stays open: %s", session_id, error
            )

    async def _close_unconfirmed(self, session_id: str, opened: SessionOpened) -> None:
        """Close the session. If the log is empty, write a closed session, which makes the late append fail."""
        events = await self.log.read(session_id)
        closed = SessionClosed(at=now(), nonce=nonce(), reason=CloseReason.LOST)
        if not events:
            await self.log.append(session_id, 0, [opened, closed])
        elif fold_session(session_id, events).is_open:
            await self.log.append(session_id, len(events), [closed])

    async def _kind(self, spec: SessionSpec) -> SandboxKind:
        """Return the kind of the sandbox, after the setup of its environment if that is missing.

        If package installation is disabled, there is none: the image must contain IPython."""
        recipe = session_recipe(spec.recipe) if self.setup_allowed else Recipe()
        environment = Spec(
            docker_image=spec.docker_image,
            limits=spec.limits,
            pre_commands=recipe.pre_commands,
            requirements_txt=recipe.requirements_txt,
            tenant=spec.tenant,
        )
        environments = self.preparation.environments
        image = await environments.find(environment)
        if image is None:
            reservation = Reservation(
                slots=self.slots,
                lane=self.lane,
                seconds_left=self.queue_timeout_seconds,
                tenant=spec.tenant,
            )
            output = bytearray()
            try:
                reservation.join_setup(setup_key(environment))
                await reservation.wait_for_setup()
                image = await environments.prepare(environment, output.extend)
            except SetupFailed as error:
                text = str(error)
                if not error.is_whole and (end := output[-2000:].decode("utf-8", "replace").strip()):
                    text += f"; the output of the setup ends with:\n{end}"
                raise InvalidRequest(text, field=error.field, code=error.code) from error
            finally:
                reservation.release()
        return evolve(kind_of(environment, image), session=True)

    async def _take(self, kind: SandboxKind, spec: SessionSpec) -> SessionSandbox:
        """Take a sandbox from the pool. It never returns to the pool."""
        try:
            sandbox = await self.pool.take(kind, spec.tenant)
        except EngineError as error:
            raise Unavailable(f"no sandbox can be started: {error}") from error
        self.pool.forget(sandbox)
        return SessionSandbox.from_sandbox(self.sandbox_engine, sandbox)

    async def _unpack(
        self, sandbox: SessionSandbox, spec: SessionSpec, archive: AsyncIterator[bytes] | None
    ) -> None:
        try:
            if archive is not None:
                limits = ArchiveLimits(bytes_max=spec.limits.disk_mb * MEBIBYTE, members_max=self.members_max)
                check = ArchiveCheck(limits, None)
                async for chunk in reject_slow(archive):
                    check.feed(chunk)
                    await sandbox.send_archive(chunk)
                check.check_complete()
            await sandbox.unpack()
        except SandboxRefused as error:
            raise archive_error(error, spec.limits) from error
        except (SandboxBroken, EngineError) as error:
            raise Unavailable(f"the sandbox broke before the session was open: {error}") from error

    def _events(self, spec: SessionSpec, sandbox: SessionSandbox) -> tuple[SessionOpened, SessionPlaced]:
        opened = SessionOpened(at=now(), nonce=nonce(), spec=spec)
        placed = SessionPlaced(
            at=now(),
            nonce=nonce(),
            replica=self.replica,
            engine=self.engine,
            container=sandbox.container_id,
            image=sandbox.image,
        )
        return opened, placed


def session_plan(spec: SessionSpec) -> SessionPlan:
    """Return the plan, which the supervisor gets before the first cell."""
    return SessionPlan(
        env=spec.env_vars,
        memory_bytes=spec.limits.memory_mb * MEBIBYTE,
        disk_bytes=spec.limits.disk_mb * MEBIBYTE,
    )


def _check_cpus(limits: Limits, error: ExecutorError) -> None:
    """Raise `InvalidRequest` if a small `config.cpus` may be the cause of the error."""
    if limits.cpus is not None and limits.cpus < RECOMMENDED_CPUS:
        raise InvalidRequest(
            f"the interpreter of the session did not start: {error}; config.cpus {limits.cpus:g} may be too low: use "
            f"at least {RECOMMENDED_CPUS:g}",
            field="config.cpus",
        ) from error


async def _remove(sandbox: SessionSandbox) -> None:
    with anyio.CancelScope(shield=True):
        await sandbox.remove()
