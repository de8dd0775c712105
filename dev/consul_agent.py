"""A Consul agent for `make cluster`: a single server, run as a child process, that keeps its data."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

from console import SetupError
from subprocesses import describe_exit, last_log_line

_STOP_SECONDS = 20.0
_RESPONSE_SECONDS = 10.0


class ConsulAgent:
    """A running agent, with its data and its log in `directory`. Leaving the context stops it."""

    def __init__(self, binary: Path, directory: Path, ports: Sequence[int]) -> None:
        """Start the agent. `ports` are for its HTTP API, for server RPC, and for gossip."""
        directory.mkdir(parents=True, exist_ok=True)
        http, server, gossip = ports
        self.address = f"127.0.0.1:{http}"
        self._log = directory / "consul.log"
        config = directory / "config.json"
        settings = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "pyexec",
            "data_dir": str(directory / "data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "leave_on_terminate": False,
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
            "ports": {
                "http": http,
                "server": server,
                "serf_lan": gossip,
                **dict.fromkeys(("serf_wan", "dns", "grpc", "https"), -1),
            },
        }
        config.write_text(json.dumps(settings, indent=1))
        with self._log.open("ab") as log:
            # A session of its own keeps Ctrl-C away from it, so that it stops after the servers.
            self._process = subprocess.Popen(
                [binary, "agent", f"-config-file={config}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    def __enter__(self) -> ConsulAgent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._pidfd)

    def fileno(self) -> int:
        """Return a descriptor that `select` reports as readable when the agent exits."""
        return self._pidfd

    def exit_error(self) -> SetupError:
        """Return the error for an agent that exited without being asked to."""
        return SetupError(f"Consul {describe_exit(self._process.wait())}. {last_log_line(self._log)}")

    def read_key(self, key: str) -> str:
        """Return the value of an existing key."""
        with urlopen(f"http://{self.address}/v1/kv/{key}?raw", timeout=_RESPONSE_SECONDS) as response:
            return str(response.read(), "utf-8")
