"""Programs that break their limits: how soon that is reported, and what the server's other callers feel of it."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.report import Amount, Section
from benchmarks.samples import Row, Samples, balanced, measure, show, timed
from benchmarks.service import HEADERS, Service, body_around, running_service, tar_of

REPORT_ROUNDS = 10
REPORT_SECONDS = 0.25
P95_FACTOR = 3.0
BOMB_SECONDS = 1.5
PAUSE_SECONDS = 0.005
"""Between two polls: a client that does nothing else would be a bomb, too."""
LOOK = 3
"""After so many polls it is asked whether the bomb has ended."""
OUTPUT_BYTES = 1024 * 1024
MARK = "import os, sys, time\ndef mark(): os.write(2, b'%.6f\\n' % time.time())\n"
LIMITS = {"memory_mb": 64, "disk_mb": 64}


@frozen
class Reported:
    """From the moment just before a program breaks a limit, which it prints itself, to the caller's whole answer. The
    time of a run begins with `started_at`."""

    service: Service
    name: str
    error_type: str
    source: str
    config: Mapping[str, Any]

    def run(self) -> float:
        metadata = json.dumps({"config": {**LIMITS, **self.config}}).encode()
        _, result = self.service.execute(metadata, tar_of("main.py", (MARK + self.source).encode()))
        end = time.time()
        if result.get("error_type") != self.error_type:
            raise RuntimeError(f"{self.name} did not end as {self.error_type}: {result}")
        if (seconds := self.config.get("timeout_seconds")) is not None:
            return end - datetime.fromisoformat(result["started_at"]).timestamp() - float(seconds)
        return end - float(result["stderr"].split()[0])


REPORTS: Sequence[tuple[str, str, str, Mapping[str, Any]]] = (
    ("timeout", "timeout", "time.sleep(60)", {"timeout_seconds": 0.5}),
    (
        "memory",
        "out_of_memory",
        "a = b'x' * (48 << 20); mark(); b = b'x' * (32 << 20); time.sleep(60)",
        {},
    ),
    (
        "memory, much more than there is",
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
BOMBS = {
    "forks": "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
    "memory": "import os\na = []\nwhile True: a.append(b'x' * (1 << 20))",
    "output": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "small files": "n = 0\nwhile True:\n try: open(f'/work/{n}', 'w').close(); n += 1\n except OSError: n = 0",
    "threads that count": "import threading\ndef count():\n while True: pass\n"
    "for _ in range(64): threading.Thread(target=count).start()",
}
IDLE = "poll, nothing else"


class Polls:
    """`GET` of an ended execution, over a connection of its own, while something else runs."""

    def __init__(self, service: Service) -> None:
        where = urlsplit(service.server.url)
        self._connection = HTTPConnection(where.hostname or "", where.port)
        self._service = service
        _, ended = service.execute(b"{}", tar_of("main.py", b"print('hello')"))
        self._path = f"/api/v1/executions/{ended['execution_id']}"

    def run(self, samples: Samples, source: str | None) -> None:
        """Polls for a while beside a program, or beside nothing. One that ends sooner is started again, once the pool
        is full again: a bomb is to be felt, not the starting of many sandboxes."""
        polled = 0.0
        while polled < BOMB_SECONDS:
            self._service.settle()
            bomb = None if source is None else self._start(source)
            begin = time.monotonic()
            while time.monotonic() < begin + BOMB_SECONDS and not (bomb and self._ended(bomb)):
                self._poll(samples)
            polled += time.monotonic() - begin
            if bomb is not None:
                self._get(f"/api/v1/executions/{bomb}?wait=60")

    def _poll(self, samples: Samples) -> None:
        for _ in range(LOOK):
            with timed() as watch:
                self._get(self._path)
            samples.seconds.append(watch.seconds)
            time.sleep(PAUSE_SECONDS)

    def _ended(self, execution: str) -> bool:
        listed = self._get("/api/v1/executions?limit=5")["executions"]
        return all(one["execution_id"] != execution or "finished_at" in one for one in listed)

    def _start(self, source: str) -> str:
        head, tail = body_around(json.dumps({"config": {"timeout_seconds": BOMB_SECONDS}}).encode())
        body = head + tar_of("main.py", source.encode()) + tail
        self._service.count_run()
        return str(self._ask("POST", "/api/v1/exec/async", body, HEADERS)["execution_id"])

    def _get(self, path: str) -> Any:
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 202):
            raise RuntimeError(f"the server answered {answer.status}: {text.decode()}")
        return json.loads(text)


def measure_bombs(image: str) -> Section:
    """Takes about three minutes."""
    reports, waits = _reports(image), _polls(image)
    slowest = [
        Amount(
            name=f"{name}: slowest report",
            value=max(samples.seconds) * 1000,
            unit="ms",
            at_most=REPORT_SECONDS * 1000,
        )
        for name, samples in reports.items()
    ]
    felt = [
        Amount(
            name=f"p95 of {name} / {IDLE}",
            value=samples.p95 / waits[IDLE].p95,
            unit="×",
            at_most=P95_FACTOR,
        )
        for name, samples in waits.items()
        if name != IDLE
    ]
    return Section(title="Bombs", samples={**reports, **waits}, amounts=[*slowest, *felt])


def _reports(image: str) -> Mapping[str, Samples]:
    with running_service(image, max_output_bytes=str(OUTPUT_BYTES)) as service:
        rows: list[tuple[Row, int]] = [(Reported(service, *report), 1) for report in REPORTS]
        return measure(rows, REPORT_ROUNDS, service.settle)


def _polls(image: str) -> Mapping[str, Samples]:
    """On a server of their own: one whose pool is full of other kinds of sandboxes would start one for each bomb."""
    bombs = {IDLE: None, **{f"poll, {name}": source for name, source in BOMBS.items()}}
    waits = {name: Samples() for name in bombs}
    with running_service(image, max_output_bytes=str(OUTPUT_BYTES), cleanup_ttl="3600") as service:
        polls = Polls(service)
        for number, order in enumerate(balanced(tuple(bombs)), 1):
            for name in order:
                polls.run(waits[name], bombs[name])
            show(f"bombs, round {number} of {len(bombs)}")
    return waits
