"""The asynchronous client."""

from __future__ import annotations

import builtins
import math
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import anyio

from . import requests, session_requests
from .arguments import list_limit, number, whole_number
from .cluster import Cluster
from .errors import InvalidAnswer
from .event_stream import OnEvent, last_result, stream_events
from .events import Event, StreamName
from .options import RunOptions, SessionOptions
from .parallel import run_in_parallel
from .result import Result, Status
from .retry import Retry
from .session import AsyncSession, SessionInfo, infos_from_json
from .session_block import AsyncSessionBlock
from .source import Source
from .timeline import Timeline
from .transport import Transport

_ANSWER_SECONDS = 1.0
_POLL_PAUSE_SECONDS = 0.5
"""The shortest time between two requests of `wait`."""


class AsyncClient:
    """Run Python code on a python-executor server.

    `retry` applies to requests that are safe to repeat: reads, kills, and submissions with an Idempotency-Key.
    `resume` applies to event streams and waits whose connection broke after they had started.
    Every method raises a subclass of ApiError if the server rejects the request, and ConnectionFailed if the
    server cannot be reached.

        async with AsyncClient("http://localhost:8080") as client:
            print((await client.run("print(6 * 7)")).stdout)
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8080",
        token: str | None = None,
        *,
        retry: Retry = Retry(),  # noqa: B008 frozen
        resume: Retry = Retry(attempts=10, longest=5.0),  # noqa: B008 frozen
    ) -> None:
        self._http = Transport(base_url, token)
        self._retry = retry
        self._resume = resume

    async def __aenter__(self) -> Self:
        self._http.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. A later call raises ClientClosed."""
        await self._http.close()

    async def run(
        self,
        source: Source,
        *,
        on_event: OnEvent | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run the source and wait until it ends. `on_event` is called with each event as it arrives.

        Cancelling this call closes the connection, and the server kills the execution. With an
        `idempotency_key` the execution continues instead, and the same call with the same key attaches to it.
        """
        events = self.stream(source, idempotency_key=idempotency_key, **options)
        return await last_result(events, on_event)

    def stream(
        self, source: Source, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[Event, None]:
        """Run the source and yield its events as they arrive; the last one is `Ended`.

        Closing the generator early closes the connection, as cancelling `run` does.
        """
        request = requests.run_streaming(source, options, idempotency_key, self._retry)
        return stream_events(self._http, request, self._resume)

    def map(
        self, sources: Iterable[Source], *, concurrency: int = 8, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[tuple[int, Result], None]:
        """Run many sources, up to `concurrency` at a time, and yield `(index, result)` as each one ends.

        Sources are read from the iterable only when they are needed. A program that fails yields a Result like
        any other. If a call of `run` raises an error, the other runs are killed and the error is raised. To stop
        early, use `contextlib.aclosing`, which kills the runs in progress.
        """
        if whole_number("concurrency", concurrency) < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")

        async def run(source: Source) -> Result:
            return await self.run(source, **options)

        return run_in_parallel(run, sources, concurrency)

    async def submit(
        self, source: Source, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> str:
        """Submit the source and return the execution ID at once, without waiting for the run."""
        key = idempotency_key or uuid.uuid4().hex
        response = await self._http.json(requests.submit(source, options, key, self._retry))
        return str(_required(response, "execution_id", str))

    async def eval(
        self,
        code: str | Mapping[str, str],
        *,
        last_expression: bool = True,
        python_version: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run source text, or source texts by file name, without building an archive.

        If `last_expression` is true, `Result.result` is the `repr` of the last expression. `python_version`,
        for example "3.12", selects an image.
        """
        request = requests.evaluate(
            code,
            options,
            last_expression=last_expression,
            python_version=python_version,
            key=idempotency_key,
            retry=self._retry,
        )
        return Result.from_json(await self._http.json(request))

    async def get(self, execution_id: str) -> Result:
        """Return the current state of an execution."""
        return Result.from_json(await self._http.json(requests.get(execution_id, self._retry)))

    async def wait(self, execution_id: str, timeout: float | None = None) -> Result:  # noqa: ASYNC109
        """Wait until an execution has ended.

        After `timeout` seconds, raise TimeoutError; its message has the status of the execution, which continues.
        """
        seconds = math.inf if timeout is None else number("timeout", timeout)
        deadline = anyio.current_time() + seconds
        status, retry = "unknown, because the server does not answer", self._retry
        # The server answers at the deadline. If it does not, wait no longer.
        with anyio.CancelScope(deadline=deadline + _ANSWER_SECONDS):
            while True:
                started = anyio.current_time()
                request = requests.wait(execution_id, deadline - started, retry)
                result = Result.from_json(await self._http.json(request))
                if result.ended:
                    return result
                status, retry = result.status, self._resume
                # A proxy or a server that shuts down may answer at once.
                await anyio.sleep_until(min(deadline, started + _POLL_PAUSE_SECONDS))
                if anyio.current_time() >= deadline:
                    break
        raise TimeoutError(
            f"execution {execution_id} has not ended after {seconds:g} s (status: {status}); it continues: "
            "call wait again, or kill it"
        )

    async def kill(self, execution_id: str) -> Status:
        """Kill an execution and return its status.

        The status is `killed`, or the final status of an execution that had already ended. If the execution
        has not ended after 10 s, it is the current status.
        """
        response = await self._http.json(requests.kill(execution_id, self._retry))
        return Status(_required(response, "status", str))

    async def list(
        self, *, status: str | None = None, limit: int | None = None, session_id: str | None = None
    ) -> AsyncGenerator[Result, None]:
        """Yield executions, newest first, without their output; at most `limit` of them; with `session_id`, only the
        cells of that session.

        The server cuts `entrypoint`, `error` and `result`; `get` returns them whole.
        """
        left, cursor = list_limit(limit), None
        while left is None or left > 0:
            page = await self._http.json(requests.page(status, left, cursor, self._retry, session_id))
            entries = _required(page, "executions", list)[:left]
            for entry in entries:
                yield Result.from_json(entry)
            left = None if left is None else left - len(entries)
            previous, cursor = cursor, page.get("next_cursor")
            if not cursor:
                return
            if cursor == previous:
                raise InvalidAnswer(f"invalid response from the server: next_cursor repeats: {cursor!r:.200}")

    async def logs(
        self, execution_id: str, *, stream: StreamName | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the output of an execution as raw bytes: both streams, or only `stream`.

        With `follow`, keep yielding output until the execution ends.
        """
        async with self._http.open(requests.logs(execution_id, stream, follow, self._retry)) as response:
            async for chunk in response.chunks():
                yield chunk

    async def files(self, execution_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the output files as the bytes of one tar archive. Raise Conflict before the execution ends."""
        async with self._http.open(requests.files(execution_id, None, self._retry)) as response:
            async for chunk in response.chunks():
                yield chunk

    async def file(self, execution_id: str, path: str) -> bytes:
        """Return the contents of one of `Result.files`.

        Raise NotFound if there is no such output file, and Conflict before the execution ends.
        """
        async with self._http.open(requests.files(execution_id, path, self._retry)) as response:
            return b"".join([chunk async for chunk in response.chunks()])

    def session(self, source: Source | None = None, **options: Unpack[SessionOptions]) -> AsyncSessionBlock:
        """Open a session and close it at the end of the `async with` block.

        A session is an interpreter that keeps its variables between calls. `source` has files for its directory.
        """
        return AsyncSessionBlock(partial(self.open_session, source, **options))

    async def open_session(
        self, source: Source | None = None, **options: Unpack[SessionOptions]
    ) -> AsyncSession:
        """Open a session that stays open until it is closed, or until a timeout of the session."""
        return self._attach(await self._http.json(session_requests.open_session(source, options)))

    async def get_session(self, session_id: str) -> AsyncSession:
        """Return an existing session. As a context manager, it leaves the session open."""
        return self._attach(await self._http.json(session_requests.get(session_id, self._retry)), keep=True)

    async def sessions(self) -> builtins.list[SessionInfo]:
        """Return all sessions."""
        return infos_from_json(await self._http.json(session_requests.list_sessions(self._retry)))

    def _attach(self, data: object, *, keep: bool = False) -> AsyncSession:
        return AsyncSession(self._http, self._retry, self._resume, SessionInfo.from_json(data), keep)

    def events(self, execution_id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Yield past and future events of an execution; the last one is `Ended`.

        `after` is the ID of the last event already seen. If that was `Ended`, there are no events. If the connection
        breaks, the client reconnects and continues after the last event.
        """
        request = requests.events(execution_id, after, self._retry)
        return stream_events(self._http, request, self._resume, execution_id=execution_id, last_id=after)

    async def timeline(self, execution_id: str) -> Timeline:
        """Return the events of an execution, with the replica of each, and the duration of each phase."""
        return Timeline.from_json(await self._http.json(requests.timeline(execution_id, self._retry)))

    async def cluster(self) -> Cluster:
        """Return the state of all replicas, the queue of each tenant, and the leader; at most two seconds old.

        A token of a tenant that does not operate the servers sees only its own queue, and no addresses.
        """
        return Cluster.from_json(await self._http.json(requests.cluster(self._retry)))


def _required(response: Any, name: str, kind: type[Any]) -> Any:
    value = response.get(name) if isinstance(response, dict) else None
    if not isinstance(value, kind):
        raise InvalidAnswer(f"invalid response from the server: {name} is missing: {str(response)[:200]}")
    return value
