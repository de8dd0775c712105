"""Build the services of interpreter sessions."""

import math

from pyexec.domain.output_files import FileLimits
from pyexec.domain.spec import MEBIBYTE
from pyexec.limits import policy_of, session_limits_of
from pyexec.metrics import SESSION_LIMIT, SESSIONS_OPEN
from pyexec.ports import Engine
from pyexec.sandbox.pool.pool import Pool
from pyexec.services.completion import CompletionWriter
from pyexec.services.preparation import Preparation
from pyexec.services.runner import Runner
from pyexec.services.sessions.cells import CellRunner
from pyexec.services.sessions.config import SessionsConfig
from pyexec.services.sessions.directory import SessionDirectory
from pyexec.services.sessions.opening import Opening
from pyexec.services.sessions.placement import SessionPlacement
from pyexec.services.sessions.recovery import SessionRecovery
from pyexec.services.sessions.sessions import Sessions
from pyexec.wiring.sandboxes import session_buffer_bytes
from pyexec.wiring.services import SharedParts, output_limits

FILES_MAX = 100_000
"""Maximum number of files in a list or a tar of a session. It is not stored, so it is larger than that of runs."""
NAMES_BYTES_MAX = 16 * MEBIBYTE


def build_sessions(
    shared: SharedParts,
    engine: Engine,
    pool: Pool,
    preparation: Preparation,
    completion: CompletionWriter,
    runner: Runner,
) -> SessionRecovery:
    """Build the services of interpreter sessions: their recovery, and with it the sessions themselves."""
    settings, stores = shared.settings, shared.stores
    policy = policy_of(settings, shared.identity.cpus)
    directory = SessionDirectory(shared.session_log, shared.corrupt_logs)
    cells = CellRunner(
        replica=shared.replica_id,
        engine=shared.identity.id,
        log=shared.log,
        blobs=shared.blobs,
        active_runs=shared.active_runs,
        completion=completion,
        resolve_later=runner.resolve_later,
        limits=output_limits(shared),
    )
    opening = Opening(
        replica=shared.replica_id,
        engine=shared.identity.id,
        log=shared.session_log,
        pool=pool,
        sandbox_engine=engine,
        preparation=preparation,
        slots=shared.slots,
        lane=shared.lane,
        cells=cells,
        members_max=settings.max_archive_members,
        buffer_mb=math.ceil(session_buffer_bytes(settings) / MEBIBYTE),
        run_limits=policy.defaults,
        setup_allowed=policy.setup_allowed,
        queue_timeout_seconds=settings.queue_timeout,
    )
    sessions = Sessions(
        SessionsConfig(
            replica=shared.replica_id,
            policy=policy,
            limits=session_limits_of(settings),
            file_limits=FileLimits(
                bytes_max=2 * settings.max_disk_mb * MEBIBYTE,
                files_max=FILES_MAX,
                names_bytes_max=NAMES_BYTES_MAX,
            ),
            leave_open=settings.consul_addr is not None,
        ),
        log=shared.session_log,
        executions=shared.log,
        membership=stores.membership,
        cells=cells,
        opening=opening,
        placement=SessionPlacement(
            replica=shared.replica_id,
            sessions_max=settings.max_sessions,
            tenants=shared.slots.tenants,
            membership=stores.membership,
            directory=directory,
        ),
        directory=directory,
    )
    shared.meter.watch(SESSIONS_OPEN, lambda: sessions.open_count)
    shared.meter.watch(SESSION_LIMIT, lambda: settings.max_sessions)
    return SessionRecovery(
        replica=shared.replica_id,
        engine=engine,
        log=shared.session_log,
        executions=shared.log,
        opening=opening,
        cells=cells,
        slots=shared.slots,
        sessions=sessions,
        directory=directory,
        corrupt_logs=shared.corrupt_logs,
    )
