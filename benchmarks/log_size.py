"""Cost of a large event log: each operation with 1,000 and 10,000 ended executions, compared with 10."""

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

from benchmarks.prefilled_logs import OPENERS, OpenLog, fill, time_retention_scans
from benchmarks.report import RatioBound, Section
from benchmarks.service import HEADERS, multipart_around, tar_of
from benchmarks.timing import Samples, print_progress, timed
from tests.support.consul import durable_agent
from tests.support.server import Server, running_server

SIZES = (10, 1_000, 10_000)
FACTOR = 1.2
ROUNDS = 100
CLEANUP_TTL_SECONDS = 86_400
EXECUTIONS = "/api/v1/executions"
RETENTION_SCAN = "retention scan"
REQUEST_ROWS = ("poll", "submit", "claim")
SLEEP = b"import time\ntime.sleep(3600)\n"
INDEXES_CHECKED = "indexes rebuilt from the events"
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
class PrefilledLog:
    """An event log of one kind ("embedded" or "Consul") with `size` ended executions."""

    kind: str
    size: int
    data_dir: Path
    consul_addr: str | None

    def open(self) -> OpenLog:
        """Open the log; an embedded one must not be open in a server at the same time."""
        return OPENERS[self.kind](self.data_dir, self.consul_addr)

    def row(self, operation: str) -> str:
        """Return the name of the row for an operation on this log."""
        return f"{operation}, {self.kind}, {self.size:,} ended"


class ServerUnderTest:
    """A server on a prefilled log. A sleeping program occupies its only slot, so no other program runs."""

    def __init__(self, server: Server, ids: Sequence[str]) -> None:
        self._ids = ids
        url = urlsplit(server.url)
        self._http = HTTPConnection(url.hostname or "", url.port)
        self._events = HTTPConnection(url.hostname or "", url.port)
        self._archive = tar_of("main.py", SLEEP)
        self._sleeper = self.submit()[1]
        self._wait_for_event(self._sleeper, "running")

    def poll(self) -> float:
        """Return the seconds it takes to get the state of an ended execution."""
        with timed() as watch:
            document = self._request("GET", f"{EXECUTIONS}/{random.choice(self._ids)}", 200)
        if document["status"] != "completed":
            raise RuntimeError(f"its status is {document['status']}; expected completed")
        return watch.seconds

    def submit(self) -> tuple[float, str]:
        """Return the seconds until an execution is accepted, and its id."""
        head, tail = multipart_around(b"{}")
        with timed() as watch:
            document = self._request("POST", "/api/v1/exec/async", 202, head + self._archive + tail)
        return watch.seconds, document["execution_id"]

    def claim(self, execution_id: str) -> float:
        """Return the seconds from submission to the leader's claim, by the timestamps of the events."""
        moments = self._wait_for_event(execution_id, "claimed")
        return (moments["claimed"] - moments["submitted"]).total_seconds()

    def kill(self, execution_id: str) -> None:
        """Kill an execution and wait until it has ended."""
        self._request("DELETE", f"{EXECUTIONS}/{execution_id}", 200)

    def close(self) -> None:
        """Kill the sleeping program and close the connection."""
        self.kill(self._sleeper)
        self._http.close()

    def _request(self, method: str, path: str, status: int, body: bytes | None = None) -> Any:
        self._http.request(method, path, body=body, headers=HEADERS if body else {})
        response = self._http.getresponse()
        text = response.read()
        if response.status != status:
            raise RuntimeError(f"{method} {path} returned {response.status}: {text.decode()}")
        return json.loads(text)

    def _wait_for_event(self, execution_id: str, wanted: str) -> dict[str, datetime]:
        """Follow an execution's events up to the wanted one; return the timestamp of each."""
        self._events.request("GET", f"{EXECUTIONS}/{execution_id}/events")
        moments: dict[str, datetime] = {}
        with self._events.getresponse() as response:
            for name, data in _server_sent_events(response):
                moments[name] = datetime.fromisoformat(data["at"])
                if name == wanted:
                    break
        self._events.close()
        if wanted not in moments:
            raise RuntimeError(f"{execution_id} ended without the event {wanted!r}")
        return moments


def measure_log_size(image: str) -> Section:
    """Measure each operation with each size and kind of log. Takes about half a minute."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyexec-bench-")))
        logs = []
        for size in SIZES:
            # Each log gets an agent of its own, so that an agent holds just one log.
            agent = stack.enter_context(durable_agent(directory / f"consul-{size}"))
            consul, embedded = directory / f"consul-data-{size}", directory / f"embedded-data-{size}"
            logs += [
                PrefilledLog(kind="Consul", size=size, data_dir=consul, consul_addr=agent.address),
                PrefilledLog(kind="embedded", size=size, data_dir=embedded, consul_addr=None),
            ]
        ids = {log: asyncio.run(fill(log.open(), log.size)) for log in logs}
        opened = {log.row(RETENTION_SCAN): log.open() for log in logs}
        samples = dict(asyncio.run(time_retention_scans(opened, ROUNDS, CLEANUP_TTL_SECONDS)))
        servers = {log: stack.enter_context(_server_under_test(log, image, ids[log])) for log in logs}
        samples |= _time_requests(servers)
    bounds = [
        RatioBound(row=large.row(operation), reference=small.row(operation), factor=FACTOR)
        for operation in (*REQUEST_ROWS, RETENTION_SCAN)
        for small, large in itertools.combinations(logs, 2)
        if small.kind == large.kind and small.size == SIZES[0]
    ]
    return Section(
        title="Cost by the number of ended executions in the log",
        samples=dict(sorted(samples.items())),
        bounds=bounds,
    )


def _time_requests(servers: dict[PrefilledLog, ServerUnderTest]) -> dict[str, Samples]:
    """Time poll, submit and claim on each server; the servers take turns in random order."""
    samples = {log.row(operation): Samples() for log in servers for operation in REQUEST_ROWS}
    for number in range(1, ROUNDS + 1):
        for log, server in random.sample(list(servers.items()), len(servers)):
            samples[log.row("poll")].seconds.append(server.poll())
            seconds, execution_id = server.submit()
            samples[log.row("submit")].seconds.append(seconds)
            samples[log.row("claim")].seconds.append(server.claim(execution_id))
            server.kill(execution_id)
        print_progress(f"round {number} of {ROUNDS}")
    return samples


@contextmanager
def _server_under_test(log: PrefilledLog, image: str, ids: Sequence[str]) -> Iterator[ServerUnderTest]:
    """Start a server on the log and wait until it leads and has checked its indexes."""
    with running_server(log.data_dir, image, **SETTINGS, consul_addr=log.consul_addr or "") as server:
        _wait_for_log_line(server, INDEXES_CHECKED)
        under_test = ServerUnderTest(server, ids)
        try:
            yield under_test
        finally:
            under_test.close()


def _wait_for_log_line(server: Server, words: str) -> None:
    """Wait until the server logs a line that contains `words`."""
    follow = ["tail", "-n", "+1", "-f", f"--pid={server.process.pid}", str(server.log)]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as tail:
        try:
            if tail.stdout is None or not any(words in line for line in tail.stdout):
                raise RuntimeError(f"the server exited before it logged {words!r}")
        finally:
            tail.terminate()


def _server_sent_events(response: HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Yield the name and the data of each Server-Sent Event."""
    name = ""
    for line in response:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
