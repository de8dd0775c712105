"""Servers as forks of one process that has imported the server's code, as importing takes most of a start.

A forked server is a process of its own and runs the same `main`. Only its command line differs from that of
`python-executor-server`."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

PRELOADED = ["pyexec.app", "pyexec.server"]
_FORKS = multiprocessing.get_context("forkserver")


class ForkedServer:
    """A running server with the interface of `subprocess.Popen`, as far as tests use it."""

    def __init__(self, environment: Mapping[str, str], imported_with: Mapping[str, str], log: TextIO) -> None:
        """Start a server that writes its logs to `log`.

        `imported_with` are variables that the server's code reads when it is imported: those of the first server
        hold for all later ones."""
        _FORKS.set_forkserver_preload(PRELOADED)
        reader, writer = os.pipe()
        self._process = _FORKS.Process(target=_serve, args=(dict(environment), _Files(writer, log.fileno())))
        with mock.patch.dict(os.environ, imported_with):
            self._process.start()
        os.close(writer)
        self.stdout = open(reader)  # noqa: SIM115 - the caller closes it, like that of Popen
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python-executor-server", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Files:
    """Descriptors for a new process: of its standard output and its standard error."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self._descriptors = (stdout, stderr)

    def __getstate__(self) -> Any:
        return [DupFd(each) for each in self._descriptors]

    def __setstate__(self, descriptors: Any) -> None:
        self._descriptors = tuple(each.detach() for each in descriptors)

    def redirect(self) -> None:
        for own, given in zip((1, 2), self._descriptors, strict=True):
            os.dup2(given, own)
            os.close(given)


def _serve(environment: dict[str, str], files: _Files) -> None:
    """Become a server: in the new process."""
    from pyexec.app import main

    files.redirect()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["python-executor-server"]
    Path("/proc/self/comm").write_text("python-executor")
    main()
