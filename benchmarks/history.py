"""What much history costs: poll, submit and reconcile with 1,000 and 10,000 ended executions beside 10."""

import asyncio
import itertools
import json
import random
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.past import LOGS, OpenLog, fill, passes
from benchmarks.report import Ratio, Section
from benchmarks.samples import Samples, show, timed
from benchmarks.service import HEADERS, body_around, tar_of
from tests.support.consul import durable_agent
from tests.support.server import Server, running_server

SIZES = (10, 1_000, 10_000)
FACTOR = 1.2
ROUNDS = 100
CLEANUP_TTL_SECONDS = 86_400
EXECUTIONS = "/api/v1/executions"
PASSES = "retention pass"
ROWS = ("poll", "submit", "claim")
SLEEP = b"import time\ntime.sleep(3600)\n"
CHECKED = "the indexes agree with the events"
SETTINGS = {
    "warm_pool": "0",
    "max_concurrent": "1",
    "local_claim": "off",
    "cleanup_ttl": str(CLEANUP_TTL_SECONDS),
    "default_memory_mb": "64",
    "default_disk_mb": "16",
    "default_timeout": "3600",
    "stop_timeout": "0",
}


@frozen(kw_only=True)
class Past:
    """A place for a log with so many ended executions in it, by name of its kind."""

    kind: str
    size: int
    data_dir: Path
    consul_addr: str | None

    def log(self) -> OpenLog:
        """Opens it; on SQLite, only while no server runs there."""
        return LOGS[self.kind](self.data_dir, self.consul_addr)

    def row(self, what: str) -> str:
        """The name of a row."""
        return f"{what}, {self.kind}, {self.size:,} ended"


class Subject:
    """A server with a past. A program that sleeps has its only slot, so that what is submitted waits, and costs the
    machine nothing but what is measured."""

    def __init__(self, server: Server, ids: Sequence[str]) -> None:
        self._ids = ids
        where = urlsplit(server.url)
        self._http = HTTPConnection(where.hostname or "", where.port)
        self._events = HTTPConnection(where.hostname or "", where.port)
        self._archive = tar_of("main.py", SLEEP)
        self._sleeper = self.submit()[1]
        self._until(self._sleeper, "running")

    def poll(self) -> float:
        """Seconds for the state of one that has ended."""
        with timed() as watch:
            document = self._ask("GET", f"{EXECUTIONS}/{random.choice(self._ids)}", 200)
        if document["status"] != "completed":
            raise RuntimeError(f"its status is {document['status']}")
        return watch.seconds

    def submit(self) -> tuple[float, str]:
        """Seconds for an execution to be accepted, and its id."""
        head, tail = body_around(b"{}")
        with timed() as watch:
            document = self._ask("POST", "/api/v1/exec/async", 202, head + self._archive + tail)
        return watch.seconds, document["execution_id"]

    def claim(self, execution_id: str) -> float:
        """Seconds from its acceptance to the leader's claim, by the server's own clock."""
        moments = self._until(execution_id, "claimed")
        return (moments["claimed"] - moments["submitted"]).total_seconds()

    def kill(self, execution_id: str) -> None:
        """Returns once it has ended."""
        self._ask("DELETE", f"{EXECUTIONS}/{execution_id}", 200)

    def close(self) -> None:
        """Ends what it has begun."""
        self.kill(self._sleeper)
        self._http.close()

    def _ask(self, method: str, path: str, status: int, body: bytes | None = None) -> Any:
        self._http.request(method, path, body=body, headers=HEADERS if body else {})
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != status:
            raise RuntimeError(f"{method} {path} is answered {answer.status}: {text.decode()}")
        return json.loads(text)

    def _until(self, execution_id: str, wanted: str) -> dict[str, datetime]:
        """The moments of its events up to a wanted one."""
        self._events.request("GET", f"{EXECUTIONS}/{execution_id}/events")
        moments: dict[str, datetime] = {}
        with self._events.getresponse() as answer:
            for name, data in _server_sent(answer):
                moments[name] = datetime.fromisoformat(data["at"])
                if name == wanted:
                    break
        self._events.close()
        if wanted not in moments:
            raise RuntimeError(f"{execution_id} ended before it was {wanted}")
        return moments


def measure_history(image: str) -> Section:
    """Takes about half a minute."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        pasts = []
        for size in SIZES:
            # An agent for each: none has the other's history in it.
            agent = stack.enter_context(durable_agent(directory / f"consul-{size}"))
            pasts.append(
                Past(kind="Consul", size=size, data_dir=directory / f"c{size}", consul_addr=agent.address)
            )
            pasts.append(Past(kind="embedded", size=size, data_dir=directory / f"e{size}", consul_addr=None))
        ids = {past: asyncio.run(fill(past.log(), past.size)) for past in pasts}
        logs = {past.row(PASSES): past.log() for past in pasts}
        samples = dict(asyncio.run(passes(logs, ROUNDS, CLEANUP_TTL_SECONDS)))
        subjects = {past: stack.enter_context(_subject(past, image, ids[past])) for past in pasts}
        samples |= _asked(subjects)
    bounds = [
        Ratio(row=many.row(what), reference=few.row(what), factor=FACTOR)
        for what in (*ROWS, PASSES)
        for few, many in itertools.combinations(pasts, 2)
        if few.kind == many.kind and few.size == SIZES[0]
    ]
    return Section(title="History", samples=dict(sorted(samples.items())), bounds=bounds)


def _asked(subjects: dict[Past, Subject]) -> dict[str, Samples]:
    """All of them by turns, in another order every round."""
    samples = {past.row(what): Samples() for past in subjects for what in ROWS}
    for number in range(1, ROUNDS + 1):
        for past, subject in random.sample(list(subjects.items()), len(subjects)):
            samples[past.row("poll")].seconds.append(subject.poll())
            seconds, execution_id = subject.submit()
            samples[past.row("submit")].seconds.append(seconds)
            samples[past.row("claim")].seconds.append(subject.claim(execution_id))
            subject.kill(execution_id)
        show(f"round {number} of {ROUNDS}")
    return samples


@contextmanager
def _subject(past: Past, image: str, ids: Sequence[str]) -> Iterator[Subject]:
    """A server on that log, once it leads and has been through its indexes."""
    with running_server(past.data_dir, image, **SETTINGS, consul_addr=past.consul_addr or "") as server:
        _wait_for(server, CHECKED)
        subject = Subject(server, ids)
        try:
            yield subject
        finally:
            subject.close()


def _wait_for(server: Server, words: str) -> None:
    """Returns once the server has logged that."""
    follow = ["tail", "-n", "+1", "-f", f"--pid={server.process.pid}", str(server.log)]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as tail:
        try:
            if tail.stdout is None or not any(words in line for line in tail.stdout):
                raise RuntimeError(f"the server ended before it said {words!r}")
        finally:
            tail.terminate()


def _server_sent(answer: HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Names and data of Server-Sent Events, to the end."""
    name = ""
    for line in answer:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
