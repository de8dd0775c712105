"""Programs that exceed their limits: time until the result says so, and the effect on other callers."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.report import Measurement, Section
from benchmarks.service import HEADERS, Service, multipart_around, running_service, tar_of
from benchmarks.timing import Row, Samples, balanced_orders, measure, print_progress, timed

ROUNDS = 10
RESULT_SECONDS_MAX = 0.25
P95_FACTOR = 3.0
HOG_SECONDS = 1.5
PAUSE_SECONDS = 0.005
"""The pause between two polls: without it, the polls themselves would load the server."""
POLLS_PER_CHECK = 3
"""The number of polls between two checks whether the program has ended."""
OUTPUT_BYTES = 1024 * 1024
PRINT_TIME = "import os, sys, time\ndef mark(): os.write(2, b'%.6f\\n' % time.time())\n"
LIMITS = {"memory_mb": 64, "disk_mb": 64}


@frozen
class LimitExceeded:
    """A program that exceeds a limit, timed from just before it does so until the caller has the complete response.

    The program prints the start time itself; for a timeout, the time starts at `started_at` plus the timeout."""

    service: Service
    name: str
    error_type: str
    source: str
    config: Mapping[str, Any]

    def run(self) -> float:
        metadata = json.dumps({"config": {**LIMITS, **self.config}}).encode()
        _, result = self.service.execute(metadata, tar_of("main.py", (PRINT_TIME + self.source).encode()))
        received = time.time()
        if result.get("error_type") != self.error_type:
            raise RuntimeError(f"{self.name}: the error_type is not {self.error_type}: {result}")
        if (seconds := self.config.get("timeout_seconds")) is not None:
            return received - datetime.fromisoformat(result["started_at"]).timestamp() - float(seconds)
        return received - float(result["stderr"].split()[0])


EXCEEDED: Sequence[tuple[str, str, str, Mapping[str, Any]]] = (
    ("timeout", "timeout", "time.sleep(60)", {"timeout_seconds": 0.5}),
    (
        "memory",
        "out_of_memory",
        "a = b'x' * (48 << 20); mark(); b = b'x' * (32 << 20); time.sleep(60)",
        {},
    ),
    (
        "memory, far over the limit",
        "out_of_memory",
        "mark(); a = b'x' * (1 << 30); time.sleep(60)",
        {},
    ),
    (
        "memory, /dev/shm",
        "out_of_memory",
        "f = open('/dev/shm/f', 'wb', 0); f.write(b'x' * (24 << 20)); mark()\n"
        "for _ in range(64): f.write(b'x' * (1 << 20))\ntime.sleep(60)",
        {},
    ),
    ("output", "output_limit", "mark()\nwhile True: os.write(1, b'x' * 65536)", {}),
)
HOGS = {
    "forks": "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
    "memory": "import os\na = []\nwhile True: a.append(b'x' * (1 << 20))",
    "output": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "small files": "n = 0\nwhile True:\n try: open(f'/work/{n}', 'w').close(); n += 1\n except OSError: n = 0",
    "busy threads": "import threading\ndef count():\n while True: pass\n"
    "for _ in range(64): threading.Thread(target=count).start()",
}
"""Programs that use up a resource."""
NO_LOAD = "poll, no load"


class Poller:
    """Polls an ended execution over a connection of its own while a program uses up a resource."""

    def __init__(self, service: Service) -> None:
        url = urlsplit(service.server.url)
        self._connection = HTTPConnection(url.hostname or "", url.port)
        self._service = service
        _, ended = service.execute(b"{}", tar_of("main.py", b"print('hello')"))
        self._path = f"/api/v1/executions/{ended['execution_id']}"

    def run(self, samples: Samples, source: str | None) -> None:
        """Poll for `HOG_SECONDS` while the program `source` runs, or while nothing runs.

        If the program ends sooner, start it again, but only after the pool is full: the load to measure is that of
        the program, not of starting sandboxes."""
        polled_seconds = 0.0
        while polled_seconds < HOG_SECONDS:
            self._service.wait_until_idle()
            execution = None if source is None else self._start(source)
            begin = time.monotonic()
            while time.monotonic() < begin + HOG_SECONDS and not (execution and self._has_ended(execution)):
                self._poll(samples)
            polled_seconds += time.monotonic() - begin
            if execution is not None:
                self._get(f"/api/v1/executions/{execution}?wait=60")
                self._service.record_activity()

    def _poll(self, samples: Samples) -> None:
        for _ in range(POLLS_PER_CHECK):
            with timed() as watch:
                self._get(self._path)
            samples.seconds.append(watch.seconds)
            time.sleep(PAUSE_SECONDS)

    def _has_ended(self, execution: str) -> bool:
        listed = self._get("/api/v1/executions?limit=5")["executions"]
        return all(item["execution_id"] != execution or "finished_at" in item for item in listed)

    def _start(self, source: str) -> str:
        head, tail = multipart_around(json.dumps({"config": {"timeout_seconds": HOG_SECONDS}}).encode())
        body = head + tar_of("main.py", source.encode()) + tail
        return str(self._request("POST", "/api/v1/exec/async", body, HEADERS)["execution_id"])

    def _get(self, path: str) -> Any:
        return self._request("GET", path)

    def _request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        text = response.read()
        if response.status not in (200, 202):
            raise RuntimeError(f"the server returned {response.status}: {text.decode()}")
        return json.loads(text)


def measure_resource_limits(image: str) -> Section:
    """Measure the time to each result, and polls under load. Takes about three minutes."""
    results, polls = _time_results(image), _time_polls(image)
    slowest = [
        Measurement(
            name=f"{name}: slowest result",
            value=max(samples.seconds) * 1000,
            unit="ms",
            at_most=RESULT_SECONDS_MAX * 1000,
        )
        for name, samples in results.items()
    ]
    slowdown = [
        Measurement(
            name=f"p95 of {name} / {NO_LOAD}",
            value=samples.p95 / polls[NO_LOAD].p95,
            unit="×",
            at_most=P95_FACTOR,
        )
        for name, samples in polls.items()
        if name != NO_LOAD
    ]
    return Section(
        title="Programs that exceed their limits",
        samples={**results, **polls},
        measurements=[*slowest, *slowdown],
    )


def _time_results(image: str) -> Mapping[str, Samples]:
    with running_service(image, max_output_bytes=str(OUTPUT_BYTES)) as service:
        rows: list[tuple[Row, int]] = [(LimitExceeded(service, *program), 1) for program in EXCEEDED]
        return measure(rows, ROUNDS, service.wait_until_idle)


def _time_polls(image: str) -> Mapping[str, Samples]:
    """Time polls on a new server: the pool of the other one is full of sandboxes of other kinds."""
    sources = {NO_LOAD: None, **{f"poll, {name}": source for name, source in HOGS.items()}}
    samples = {name: Samples() for name in sources}
    with running_service(image, max_output_bytes=str(OUTPUT_BYTES), cleanup_ttl="3600") as service:
        poller = Poller(service)
        for number, order in enumerate(balanced_orders(tuple(sources)), 1):
            for name in order:
                poller.run(samples[name], sources[name])
            print_progress(f"round {number} of {len(sources)}")
    return samples
