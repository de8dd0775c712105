"""Events and executions for tests: by hand, and at random."""

import os
import time
from datetime import UTC, datetime
from itertools import count

from attrs import evolve
from hypothesis import strategies as st

from pyexec.domain.crash import TracebackEntry, TracebackFrame
from pyexec.domain.events import (
    Adopted,
    Claimed,
    Event,
    Failed,
    FailureType,
    Finished,
    Killed,
    KillRequested,
    Output,
    Preparing,
    Released,
    Running,
    Submitted,
    Usage,
)
from pyexec.domain.ids import execution_id, session_id
from pyexec.domain.output_files import OutputFile, OutputFiles, SkippedPath, SkippedPattern, SkipReason
from pyexec.domain.session_events import (
    CloseReason,
    InterpreterRestarted,
    SessionAdopted,
    SessionClosed,
    SessionEvent,
    SessionOpened,
    SessionPlaced,
)
from pyexec.domain.spec import Limits, SessionSpec, Spec

LIMITS = Limits(timeout_seconds=300, network_disabled=True, memory_mb=1024, disk_mb=2048, cpu_shares=1024)
SPEC = Spec(docker_image="python:3.12-slim", limits=LIMITS)
SESSION_SPEC = SessionSpec(
    docker_image="python:3.12-slim", limits=LIMITS, idle_timeout_seconds=600, lifetime_seconds=3600
)
START = datetime(2026, 1, 1, tzinfo=UTC)

_nonces = count(1)


def nonce() -> str:
    return f"nonce-{next(_nonces)}"


def new_id(at: datetime | None = None) -> str:
    made = time.time_ns() if at is None else round(at.timestamp() * 1e9)
    return execution_id(made, os.urandom(8))


def new_session_id() -> str:
    return session_id(time.time_ns(), os.urandom(8))


def submitted(
    at: datetime = START, payload: str | None = None, pinned: str | None = None, session: str | None = None
) -> Submitted:
    spec = evolve(SPEC, session_id=session)
    return Submitted(at=at, nonce=nonce(), spec=spec, payload=payload, pinned=pinned)


def claimed(replica: str = "replica-1", at: datetime = START) -> Claimed:
    return Claimed(at=at, nonce=nonce(), replica=replica)


def released(at: datetime = START) -> Released:
    return Released(at=at, nonce=nonce(), reason="its replica is gone")


def preparing(at: datetime = START) -> Preparing:
    return Preparing(at=at, nonce=nonce())


def running(at: datetime = START) -> Running:
    return Running(at=at, nonce=nonce(), engine="engine-1", container="c0ffee")


def adopted(replica: str = "b", at: datetime = START) -> Adopted:
    return Adopted(at=at, nonce=nonce(), replica=replica)


def kill_requested(at: datetime = START) -> KillRequested:
    return KillRequested(at=at, nonce=nonce())


def finished(exit_code: int = 0, at: datetime = START) -> Finished:
    return Finished(at=at, nonce=nonce(), exit_code=exit_code)


def failed(at: datetime = START) -> Failed:
    return Failed(at=at, nonce=nonce(), error_type=FailureType.LOST, error="its replica is gone")


def killed(at: datetime = START) -> Killed:
    return Killed(at=at, nonce=nonce())


def opened(at: datetime = START) -> SessionOpened:
    return SessionOpened(at=at, nonce=nonce(), spec=SESSION_SPEC)


def placed(replica: str = "replica-1") -> SessionPlaced:
    return SessionPlaced(at=START, nonce=nonce(), replica=replica, engine="engine-1", container="c0ffee")


def session_adopted(replica: str = "b") -> SessionAdopted:
    return SessionAdopted(at=START, nonce=nonce(), replica=replica)


def interpreter_restarted() -> InterpreterRestarted:
    return InterpreterRestarted(at=START, nonce=nonce(), reason="timeout")


def closed(reason: CloseReason = CloseReason.DELETED, at: datetime = START) -> SessionClosed:
    return SessionClosed(at=at, nonce=nonce(), reason=reason)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# JSON in UTF-8 can contain any text except unpaired surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))
floats = st.floats(0, 1e9, allow_nan=False)
counts = st.integers(0, 2**62)

limits = st.builds(
    Limits,
    timeout_seconds=floats,
    network_disabled=st.booleans(),
    memory_mb=counts,
    disk_mb=counts,
    cpu_shares=counts,
    cpus=st.none() | floats,
)
specs = st.builds(
    Spec,
    docker_image=texts,
    limits=limits,
    entrypoint=st.none() | texts,
    stdin=texts,
    env_vars=st.lists(texts, max_size=3).map(tuple),
    script_args=st.lists(texts, max_size=3).map(tuple),
    eval_last_expr=st.booleans(),
    capture_displays=st.booleans(),
    output_files=st.lists(texts, max_size=3).map(tuple),
    session_id=st.none() | texts,
    code=st.none() | texts,
)
frames = st.builds(
    TracebackFrame, file=texts, line=counts, function=st.none() | texts, code=st.none() | texts
)
tracebacks = st.builds(
    TracebackEntry,
    type=texts,
    message=texts,
    relation=st.none() | texts,
    frames=st.lists(frames, max_size=2).map(tuple),
    frames_omitted=st.none() | counts,
)
usages = st.none() | st.builds(Usage, cpu_seconds=floats, peak_memory_bytes=counts)
outputs = st.builds(Output, inline=st.none() | st.binary(max_size=40), blob=st.none() | texts)
files = st.none() | st.builds(
    OutputFiles,
    listed=st.lists(st.builds(OutputFile, path=texts, size=counts), max_size=3).map(tuple),
    truncated=st.booleans(),
    blob=st.none() | texts,
    skipped_paths=st.lists(
        st.builds(SkippedPath, path=texts, reason=st.sampled_from(SkipReason)), max_size=3
    ).map(tuple),
    skipped_patterns=st.lists(
        st.builds(SkippedPattern, number=counts, reason=st.sampled_from(SkipReason)), max_size=3
    ).map(tuple),
    skipped_truncated=st.booleans(),
)
optional_texts = st.none() | texts

submissions = st.builds(Submitted, at=moments, nonce=texts, spec=specs, payload=optional_texts)
later_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Claimed, at=moments, nonce=texts, replica=texts),
    st.builds(Released, at=moments, nonce=texts, reason=texts),
    st.builds(Preparing, at=moments, nonce=texts),
    st.builds(Running, at=moments, nonce=texts, engine=texts, container=texts),
    st.builds(Adopted, at=moments, nonce=texts, replica=texts),
    st.builds(KillRequested, at=moments, nonce=texts),
    st.builds(
        Finished,
        at=moments,
        nonce=texts,
        exit_code=st.integers(0, 255),
        error=optional_texts,
        error_type=optional_texts,
        error_line=st.none() | counts,
        traceback=st.none() | st.lists(tracebacks, max_size=2).map(tuple),
        result=optional_texts,
        result_truncated=st.booleans(),
        usage=usages,
        output=outputs,
        files=files,
        interpreter_restarted=st.booleans(),
    ),
    st.builds(
        Failed,
        at=moments,
        nonce=texts,
        error_type=st.sampled_from(FailureType),
        error=texts,
        exit_code=st.none() | st.integers(0, 255),
        usage=usages,
        output=outputs,
        files=files,
        interpreter_restarted=st.booleans(),
    ),
    st.builds(
        Killed,
        at=moments,
        nonce=texts,
        usage=usages,
        output=outputs,
        files=files,
        interpreter_restarted=st.booleans(),
    ),
)
any_event = submissions | later_events

session_specs = st.builds(
    SessionSpec,
    docker_image=texts,
    limits=limits,
    idle_timeout_seconds=floats,
    lifetime_seconds=floats,
    env_vars=st.lists(texts, max_size=3).map(tuple),
    pre_commands=st.lists(texts, max_size=3).map(tuple),
    requirements_txt=optional_texts,
    tenant=texts,
)
session_openings = st.builds(SessionOpened, at=moments, nonce=texts, spec=session_specs)
later_session_events: st.SearchStrategy[SessionEvent] = st.one_of(
    st.builds(
        SessionPlaced,
        at=moments,
        nonce=texts,
        replica=texts,
        engine=texts,
        container=texts,
        image=optional_texts,
    ),
    st.builds(SessionAdopted, at=moments, nonce=texts, replica=texts),
    st.builds(InterpreterRestarted, at=moments, nonce=texts, reason=texts),
    st.builds(SessionClosed, at=moments, nonce=texts, reason=st.sampled_from(CloseReason)),
)
any_session_event = session_openings | later_session_events
