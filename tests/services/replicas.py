"""Replicas as simulated processes, with the server's own wiring, from joining to the last clean-up."""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from pyexec.domain.spec import Metadata
from pyexec.domain.tenants import DEFAULT_TENANT, Tenant, Tenants
from pyexec.domain.webhook_schedule import Attempt
from pyexec.errors import EngineError, ExecutorError, Unavailable
from pyexec.ports import Caller, Member
from pyexec.sandbox.isolation_check import IsolationCheck, IsolationCheckConfig
from pyexec.server import Stop
from pyexec.services.active_runs import Run
from pyexec.services.uploads import Upload
from pyexec.settings import Settings
from pyexec.web.context import Context, ServerState
from pyexec.wiring.replica import Replica, assemble
from pyexec.wiring.stores import Stores
from tests.services.callers import Request, pieces
from tests.services.process_engine import ProcessEngine
from tests.services.process_members import ProcessMembership, WorldPeers
from tests.services.process_stores import ProcessBlobs, ProcessLog, ProcessSessionLog
from tests.services.world import Crashed, Process, World

SLOTS = 2
SETUPS = 1
QUEUE_SECONDS = 600.0
RUN_SECONDS = 300.0
RETRY_SECONDS = 2.0
DRAIN_SECONDS = 5.0
NO_INDEX = partial(nullcontext, None)
TENANTS = Tenants(
    (Tenant(name=DEFAULT_TENANT, weight=2), Tenant(name="capped", max_running=1, max_sessions=1))
)
PROOF = IsolationCheckConfig(
    default_image="of no use here",
    uids=range(1, 2),
    unsupported=(),
    accepted=(),
    networks=(),
    ports=(),
    strict=False,
)


class NoReceiver:
    """Receives no webhook."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        raise AssertionError(f"no request asks for a webhook, but {url} was sent one")


class Life:
    """One replica from its start until it stops or crashes."""

    def __init__(self, world: World, name: str, engine: str, *, local_claim: bool) -> None:
        self.world = world
        self.process = Process(name)
        self.engine = engine
        self.requests: list[Request] = []
        self.scope = anyio.CancelScope()
        self.stop = Stop()
        self.stopped_at: float | None = None
        self.left_early: list[str] = []
        """Executions whose programs ran at the end of a shutdown that could have waited longer for them."""
        self.ended = anyio.Event()
        self.died_of: BaseException | None = None
        self.state = ServerState(not_ready_reason="the server is starting")
        self.replica: Replica | None = None
        self._settings = Settings(
            local_claim=local_claim,
            max_concurrent=SLOTS,
            max_setups=SETUPS,
            warm_pool=1,
            queue_timeout=QUEUE_SECONDS,
            default_timeout=RUN_SECONDS,
            cleanup_ttl=1e8,
            data_dir=Path("/tmp"),
            adoption_grace=20.0,
            consul_addr="of no use here: the ports below stand for it",
        )

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def serving(self) -> bool:
        gone = self.process.crashed or self.stop.requested.is_set() or self.ended.is_set()
        return self.state.context is not None and not gone

    def context(self) -> Context:
        """Return the services; raise `Unavailable` as the HTTP layer does."""
        if self.state.context is None:
            raise Unavailable(self.state.not_ready_reason)
        return self.state.context

    async def run(self) -> None:
        """Run the process until it ends."""
        try:
            with self.scope:
                await self._serve()
        except BaseException as error:  # noqa: BLE001  checked at the end of every step
            if not self.process.crashed:
                self.died_of = error
        finally:
            if not self.process.crashed:
                self.world.members.pop(self.name, None)
                self.world.notify_all()
            self.ended.set()

    async def _serve(self) -> None:
        world, process = self.world, self.process
        membership = ProcessMembership(world, process)
        member = Member(replica=self.name, engine=self.engine, address=None, slots=SLOTS, version="0")
        while True:
            try:
                await membership.join(member)
                break
            except Unavailable:
                await anyio.sleep(RETRY_SECONDS)
        stores = Stores(
            deployment="deployment",
            log=ProcessLog(world, process),
            session_log=ProcessSessionLog(world, process),
            blobs=ProcessBlobs(world, process),
            membership=membership,
            peers=WorldPeers(world, process),
        )
        engine: Any = ProcessEngine(world.engines[self.engine], process)
        engine_identity = await engine.identify()
        proof = IsolationCheck(engine, PROOF, passed=True)
        sender = NoReceiver()
        self.replica = assemble(
            self._settings, member, engine, engine_identity, stores, proof, NO_INDEX, TENANTS, sender
        )
        try:
            while True:
                if await self._serves(self.replica):
                    break
                await anyio.sleep(RETRY_SECONDS)
        finally:
            self.state.context = None
            if self.stopped_at is not None and anyio.current_time() < self.stopped_at + DRAIN_SECONDS:
                self.left_early = world.running_executions(self.name)
            await self.replica.recovery.remove_own()
            await membership.leave()

    def _open(self) -> None:
        assert self.replica is not None
        self.state.context = self.replica.context

    async def _serves(self, replica: Replica) -> bool:
        """Serve until the replica stops. Return False if the engine was unavailable at the start, so that the caller
        retries."""
        away: BaseExceptionGroup[EngineError] | None = None
        try:
            await replica.serve(self._open, self.stop.requested, self.stop.drain, DRAIN_SECONDS)
        except* EngineError as errors:
            away = errors
        if away is not None and self.state.context is not None:
            raise away
        return away is None

    def shut_down(self) -> None:
        """Shut down as with SIGTERM."""
        self.stopped_at = anyio.current_time()
        self.stop.requested.set()

    def crash(self) -> None:
        """Crash as with SIGKILL. The Consul session expires later."""
        self.process.crash()
        self.stopped_at = None
        self.scope.cancel()
        for request in self.requests:
            request.hang_up()

    async def request(self, request: Request, archive: bytes) -> None:
        """Handle a request as the HTTP handlers do."""
        try:
            with request.scope():
                await (self._run if request.sync else self._submit)(request, self._upload(request, archive))
        except ExecutorError as error:
            request.error = error
        except BaseException as error:  # noqa: BLE001  checked at the end of every step
            request.error = error
            if not self.process.crashed and self.died_of is None:
                self.died_of = error
        finally:
            request.done = True

    def _upload(self, request: Request, archive: bytes) -> Upload:
        return Upload(
            metadata=Metadata(
                env_vars=(f"TOKEN={request.token}",),
                requirements_txt=request.package,
                docker_image=request.image,
            ),
            archive=pieces(archive),
            key=request.key,
            identity="sync" if request.sync else "async",
            tenant=request.tenant,
        )

    async def _submit(self, request: Request, upload: Upload) -> None:
        request.execution_id = await self.context().submissions.submit(upload)
        request.accepted = True

    async def _run(self, request: Request, upload: Upload) -> None:
        context = self.context()
        started = await context.submissions.run(upload)
        request.execution_id = started.id if isinstance(started, Run) else started
        request.accepted = True
        try:
            if isinstance(started, Run):
                await started.inactive.wait()
        except (anyio.get_cancelled_exc_class(), ConnectionError):
            if request.key is None and isinstance(started, Run):
                self.world.kills_asked.add(started.id)
                with anyio.CancelScope(shield=True):
                    await context.executions.request_kill(started.id, Caller())
            raise

    async def kill(self, execution_id: str) -> None:
        """Kill an execution as DELETE does."""
        try:
            request = Request("", sync=False, key=None)
            self.requests.append(request)
            with request.scope():
                await self.context().executions.kill(execution_id, Caller())
        except (ExecutorError, Crashed):
            return
        except BaseException as error:  # noqa: BLE001  checked at the end of every step
            if self.died_of is None:
                self.died_of = error
