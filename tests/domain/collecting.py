"""Run the collector on a directory of this machine, and check its frames as the server does."""

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, define, field

from pyexec.domain.output_files import UNSAFE, FileCheck, FileLimits, SkipReason, normalize_patterns
from pyexec.guest import collector

LIMITS = FileLimits(bytes_max=1000, files_max=20)


@define
class Collected:
    """The frames that the collector sent."""

    files: dict[str, bytes] = field(factory=dict)
    paths: list[tuple[str, str]] = field(factory=list)
    report: dict[str, Any] = field(factory=dict)

    @property
    def patterns(self) -> list[tuple[int, str]]:
        return [tuple(pair) for pair in self.report["patterns"]]


@define
class Clock:
    """A clock that moves only if it is told to, in place of the module `time`."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def read_slowly(self, file: int, size: int) -> bytes:
        self.now += 3
        return os.pread(file, size, 0)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory that the collector takes for /work."""
    root = tmp_path / "work"
    root.mkdir()
    monkeypatch.setattr(collector, "ROOT", str(root))
    return root


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def collect(patterns: Sequence[str], limits: FileLimits = LIMITS) -> Collected:
    """Collect files, and check every frame as the server does."""
    found, checked = Collected(), FileCheck(limits)
    current = ""

    def send(kind: bytes, payload: bytes) -> None:
        nonlocal current
        assert len(payload) < 16000
        if kind == collector.DATA:
            found.files[current] += base64.b64decode(payload)
            checked.feed(base64.b64decode(payload))
            return
        document = json.loads(payload)
        if kind == collector.FILE:
            current = document["path"]
            found.files[current] = b""
            checked.begin(current, document["size"])
        elif kind == collector.SKIPPED:
            checked.skip(document["path"], SkipReason(document["reason"]))
            found.paths.append((document["path"], document["reason"]))
        else:
            found.report = document

    order = {"patterns": normalize_patterns(patterns), "unsafe": UNSAFE.pattern, **asdict(limits)}
    collector.collect(order, send)
    assert {SkipReason(reason) for _, reason in found.patterns} <= set(SkipReason)
    return found
