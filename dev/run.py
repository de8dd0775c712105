"""`make run`: from a bare machine to a server that has run its first program."""

from __future__ import annotations

import sys
from pathlib import Path

import trial
from command import RUN_DIR
from provision import provision
from report import Failure, exit_code_of, say
from server import Servers


def main() -> int:
    machine = provision(dev=False)
    environment = trial.environment(machine, data_dir=str(RUN_DIR / "data"))
    with Servers() as servers:
        server = servers.start(environment)
        url = server.wait_until_ready()
        if url is not None:
            trial.say_hello(server, url, environment)
        if url is not None and not servers.stopping:
            say(f"python-executor listens on {url}; try, in another terminal:")
            trial.say_how(url)
        code = server.wait()
        if not servers.stopping:
            raise Failure(f"The server ended by itself, with {code}.")
    name = Path(environment["PYEXEC_DATA_DIR"]) / "deployment"
    if name.exists():  # else it was stopped before it had begun
        trial.check_nothing_left(machine.engine, name.read_text().strip())
    return code


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
