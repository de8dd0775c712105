"""`make run`: from a bare machine to a server that has run its first program."""

from __future__ import annotations

import sys
from pathlib import Path

import first_run
from console import SetupError, print_step, run_main
from provision import provision
from server_process import ServerGroup
from subprocesses import RUN_DIR


def main() -> int:
    machine = provision(dev=False)
    environment = first_run.environment(machine, data_dir=str(RUN_DIR / "data"))
    with ServerGroup() as servers:
        server = servers.start(environment)
        url = server.wait_until_ready()
        if url is not None:
            first_run.run_first_program(server, url, environment)
        if url is not None and not servers.stopping:
            print_step(f"python-executor listens on {url}; try, in another terminal:")
            first_run.print_example(url)
        code = server.wait()
        if not servers.stopping:
            raise SetupError(f"The server ended by itself, with {code}.")
    name = Path(environment["PYEXEC_DATA_DIR"]) / "deployment"
    if name.exists():  # else it was stopped before it had begun
        first_run.check_no_containers_left(machine.engine, name.read_text().strip())
    return code


if __name__ == "__main__":
    sys.exit(run_main(main))
