"""The asynchronous client."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import anyio

from . import requests
from .errors import InvalidAnswer
from .events import Ended, Event, StreamName
from .following import follow as follow_events
from .mapping import run_all
from .options import RunOptions
from .result import Result, Status
from .retry import Retry
from .source import Source
from .transport import Transport

OnEvent = Callable[[Event], Awaitable[None] | None]


class AsyncClient:
    """Runs Python on a python-executor server.

    `retry` is for requests that may safely be sent twice: reads, kills, and submissions, which carry an
    Idempotency-Key. `resume` is for event streams and waits that had begun and broke off.
    Every method raises the kinds of ApiError for what the server refuses, and ConnectionFailed.

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
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def run(
        self,
        source: Source,
        *,
        on_event: OnEvent | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run it and wait for its end, however long; `on_event` sees what happens as it happens.

        Cancelling this call hangs up, and that ends the run, unless an `idempotency_key` was given: then the
        run goes on, and the same call with the same key finds it again.
        """
        async with aclosing(self.stream(source, idempotency_key=idempotency_key, **options)) as events:
            async for event in events:
                if on_event is not None and inspect.isawaitable(pending := on_event(event)):
                    await pending
                if isinstance(event, Ended):
                    return event.result
        raise AssertionError("an event stream ends with its last event or raises")

    def stream(
        self, source: Source, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[Event, None]:
        """Run it and get its events as they happen, an `Ended` last. Leaving early hangs up, as in `run`."""
        request = requests.run_streaming(source, options, idempotency_key, self._retry)
        return follow_events(self._http, request, self._resume)

    def map(
        self, sources: Iterable[Source], *, concurrency: int = 8, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[tuple[int, Result], None]:
        """Run many, `concurrency` of them at a time, and get each one's place among them and its Result as it
        ends. Sources are taken as they are needed.

        A run that fails is a Result; what `run` would raise ends the others and is raised. Leave early inside
        `contextlib.aclosing`: that hangs up, and ends the runs that are under way.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency is at least 1, not {concurrency}")

        async def run(source: Source) -> Result:
            return await self.run(source, **options)

        return run_all(run, sources, concurrency)

    async def submit(
        self, source: Source, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> str:
        """Hand it over and return the execution's id at once. The run goes on without us."""
        key = idempotency_key or uuid.uuid4().hex
        answer = await self._http.json(requests.submit(source, options, key, self._retry))
        return str(_member(answer, "execution_id", str))

    async def eval(
        self,
        code: str | Mapping[str, str],
        *,
        last_expression: bool = True,
        python_version: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run a text, or texts by file name, without an archive.

        `last_expression`: give back its `repr` as `Result.result`. `python_version`, like "3.12", picks
        an image.
        """
        extras = {"eval_last_expr": last_expression, "python_version": python_version}
        request = requests.evaluate(code, options, extras, idempotency_key, self._retry)
        return Result.from_json(await self._http.json(request))

    async def get(self, execution_id: str) -> Result:
        """The execution's state now."""
        return Result.from_json(await self._http.json(requests.get(execution_id, self._retry)))

    async def wait(self, execution_id: str, timeout: float | None = None) -> Result:  # noqa: ASYNC109
        """Wait until it has ended. TimeoutError if that takes longer than `timeout` seconds."""
        patience = self._retry
        with anyio.fail_after(timeout):
            while True:
                result = Result.from_json(await self._http.json(requests.wait(execution_id, patience)))
                if result.ended:
                    return result
                patience = self._resume

    async def kill(self, execution_id: str) -> Status:
        """End it. The status is `killed`, or what it had become by itself, or, where its end is still on the
        way after 10 s, the present one."""
        answer = await self._http.json(requests.kill(execution_id, self._retry))
        return Status(_member(answer, "status", str))

    async def list(
        self, *, status: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Result, None]:
        """Executions, newest first, without their outputs; at most `limit` of them."""
        left, cursor = limit, None
        while left is None or left > 0:
            page = await self._http.json(requests.page(status, left, cursor, self._retry))
            entries = _member(page, "executions", list)[:left]
            for entry in entries:
                yield Result.from_json(entry)
            left = None if left is None else left - len(entries)
            cursor = page.get("next_cursor")
            if not cursor:
                return

    async def logs(
        self, execution_id: str, *, stream: StreamName | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Its output, byte for byte, of one stream or both; with `follow`, as it comes until the end."""
        async with self._http.open(requests.logs(execution_id, stream, follow, self._retry)) as answer:
            async for chunk in answer.chunks():
                yield chunk

    async def files(self, execution_id: str) -> AsyncGenerator[bytes, None]:
        """What `output_files` brought back, as the bytes of a tar. Conflict before the execution's end."""
        async with self._http.open(requests.files(execution_id, None, self._retry)) as answer:
            async for chunk in answer.chunks():
                yield chunk

    async def file(self, execution_id: str, path: str) -> bytes:
        """The contents of one of `Result.files`. NotFound for another path, Conflict before the end."""
        async with self._http.open(requests.files(execution_id, path, self._retry)) as answer:
            return b"".join([chunk async for chunk in answer.chunks()])

    def events(self, execution_id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
        """What happened and happens to it, an `Ended` last. `after`: the id of the last event already known.

        A connection that breaks is made again, where it broke off.
        """
        request = requests.events(execution_id, after, self._retry)
        return follow_events(self._http, request, self._resume, execution_id=execution_id, last_id=after)


def _member(answer: Any, name: str, kind: type[Any]) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise InvalidAnswer(f"the server's answer has no {name}: {str(answer)[:200]}")
    return value
