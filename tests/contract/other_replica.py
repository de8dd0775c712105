"""A replica in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import to_thread

from tests.support.paths import ROOT


@contextmanager
def other_replica(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.contract.replica", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await to_thread.run_sync(process.stdout.readline)).strip()
