"""Load for a cluster: many programs, each submitted to a random replica by a caller that retries until it succeeds.

After a broken connection, or a response of 429 or 503, the caller sends the request to another replica, with the same
Idempotency-Key. So each program is one execution, even if the first replica crashes."""

import itertools
import random
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import anyio
from attrs import define, field, frozen

from tests.support.api import Answer, form
from tests.support.archives import script
from tests.support.starts import PROGRAM

RETRY_STATUSES = (429, 503)
PAUSE_SECONDS = 0.3
ANSWER_SECONDS = 90
OPEN = ("pending", "running")


@frozen(kw_only=True)
class Job:
    """One program: its mark, duration, exit code, and True in `waits` if it is a synchronous request."""

    mark: str
    seconds: float
    code: int
    waits: bool
    key: str = field(factory=lambda: secrets.token_hex(8))

    @property
    def metadata(self) -> dict[str, Any]:
        return {"script_args": [self.mark, str(self.seconds), str(self.code)]}


@define
class Load:
    """Runs jobs. `results` are the results by the jobs' marks; `refusals` counts the requests that were retried."""

    urls: Sequence[str]
    http: aiohttp.ClientSession
    random: random.Random
    results: dict[str, Any] = field(factory=dict)
    jobs: dict[str, Job] = field(factory=dict)
    refusals: int = 0
    unexpected: list[str] = field(factory=list)
    _ended: anyio.Event = field(factory=anyio.Event)

    def job(self, *, longest: float, shortest: float = 0.05) -> Job:
        """Return a new random job."""
        job = Job(
            mark=f"m{len(self.jobs)}",
            seconds=round(self.random.uniform(shortest, longest), 2),
            code=self.random.choice([0, 0, 0, 3]),
            waits=self.random.random() < 0.5,
        )
        self.jobs[job.mark] = job
        return job

    async def run(self, count: int, *, at_once: int = 6, longest: float = 2.0) -> None:
        """Run `count` jobs, and wait until all have ended."""
        await self._work_all(iter([self.job(longest=longest) for _ in range(count)]), at_once)

    async def run_until(self, end: anyio.Event, *, most: int, at_once: int = 6, longest: float = 2.0) -> None:
        """Run jobs until `end` is set, at most `most`, and wait until all have ended."""
        numbers = itertools.takewhile(lambda _: not end.is_set(), range(most))
        await self._work_all((self.job(longest=longest) for _ in numbers), at_once)

    async def _work_all(self, jobs: Iterator[Job], at_once: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(at_once):
                tasks.start_soon(self._work, jobs, name=f"caller {number}")

    async def until_ended(self, count: int) -> None:
        """Wait until `count` jobs have ended."""
        while len(self.results) < count:
            await self._ended.wait()

    async def do(self, job: Job) -> Any:
        """Run one job; return its result."""
        if job.waits:
            result = (await self._until(200, self._post, "/api/v1/exec/sync", job)).document
        else:
            accepted = await self._until(202, self._post, "/api/v1/exec/async", job)
            result = await self.end_of(accepted.document["execution_id"])
        return self._record(job, result)

    async def submit(self, job: Job, url: str) -> str:
        """Submit a job to the replica at `url`; return the execution's id. `finish` waits for it."""
        answer = await self._post(url, "/api/v1/exec/async", job)
        assert answer.status == 202, answer
        return str(answer.document["execution_id"])

    async def finish(self, job: Job, execution_id: str) -> Any:
        """Wait for a job that was submitted; return its result."""
        return self._record(job, await self.end_of(execution_id))

    def _record(self, job: Job, result: Any) -> Any:
        self.results[job.mark] = result
        event, self._ended = self._ended, anyio.Event()
        event.set()
        return result

    async def end_of(self, execution_id: str) -> Any:
        """Wait until an execution has ended; return its result, from any replica."""
        while True:
            answer = await self._until(200, self._get, f"/api/v1/executions/{execution_id}?wait=60")
            if answer.document["status"] not in OPEN:
                return answer.document

    async def everything(self) -> dict[str, str]:
        """Return the status of every execution in the cluster."""
        known: dict[str, str] = {}
        cursor = ""
        while True:
            answer = await self._until(200, self._get, f"/api/v1/executions?limit=500{cursor}")
            known |= {e["execution_id"]: e["status"] for e in answer.document["executions"]}
            if answer.document["next_cursor"] is None:
                return known
            cursor = f"&cursor={answer.document['next_cursor']}"

    async def _work(self, jobs: Any) -> None:
        for job in jobs:
            await self.do(job)

    async def _until(self, status: int, ask: Any, *arguments: Any) -> Answer:
        """Send a request to random replicas until one responds with `status`."""
        while True:
            url = self.random.choice(self.urls)
            try:
                answer: Answer = await ask(url, *arguments)
            except (aiohttp.ClientError, TimeoutError):
                answer = Answer(0, {}, None)
            if answer.status == status:
                return answer
            self.refusals += 1
            if answer.status not in (0, *RETRY_STATUSES):
                self.unexpected.append(f"{arguments}: {answer.status} {answer.document}")
                raise AssertionError(self.unexpected[-1])
            await anyio.sleep(PAUSE_SECONDS)

    async def _post(self, url: str, path: str, job: Job) -> Answer:
        headers = {"Idempotency-Key": job.key}
        body = form(script(PROGRAM), job.metadata)
        async with self.http.post(url + path, data=body, headers=headers) as answer:
            return Answer(answer.status, answer.headers, await answer.json())

    async def _get(self, url: str, path: str) -> Answer:
        async with self.http.get(url + path) as answer:
            return Answer(answer.status, answer.headers, await answer.json())
