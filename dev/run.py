"""`make run`: set up the machine, start a server and run a first program on it."""

from __future__ import annotations

import sys
from pathlib import Path

import first_run
from console import SetupError, print_step, run_main
from provision import provision
from server_process import ServerGroup
from subprocesses import RUN_DIR, describe_exit


def main() -> int:
    machine = provision(dev=False)
    environment = first_run.server_environment(machine, data_dir=str(RUN_DIR / "data"))
    with ServerGroup() as servers:
        server = servers.start(environment)
        url = server.wait_until_ready()
        if url is not None:
            first_run.run_first_program(server, url, environment)
        if url is not None and not servers.stopping:
            print_step(f"Programs run in the image {machine.image}, unless a request names another one")
            print_step(f"python-executor is running at {url}. To try it, in another terminal:")
            first_run.print_example(url)
        code = server.wait()
        if not servers.stopping:
            end = f"The server {describe_exit(code)}."
            if code != 0:
                raise SetupError(end)
            print_step(end)
    deployment = Path(environment["PYEXEC_DATA_DIR"]) / "deployment"
    if deployment.exists():  # missing if the server was stopped during its start
        first_run.check_no_containers_left(machine.engine, deployment.read_text().strip())
    return code


if __name__ == "__main__":
    sys.exit(run_main(main))
