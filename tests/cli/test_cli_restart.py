"""Test `follow` while the server restarts."""

import json

import pytest
from attrs import evolve

from tests.cli.conftest import read_until
from tests.support.canned import Request, canned
from tests.support.consul import free_ports
from tests.support.server import running_server

AT = "2026-01-01T00:00:00.000Z"
CODE = """\
import time
print('one', flush=True)
time.sleep(5)
print('two', flush=True)
raise SystemExit(3)
"""


def test_follow_resumes_after_a_server_restart(lone_program, image, tmp_path_factory):
    settings = {"port": str(free_ports(["server"])["server"]), "warm_pool": "1", "max_concurrent": "1"}
    data = tmp_path_factory.mktemp("restarted") / "data"
    with running_server(data, image, **settings) as first:
        program = evolve(lone_program, server=first.url)
        execution_id = program.run("submit", stdin=CODE.encode()).stdout.decode().strip()
        with program.started("follow", "--tail", execution_id) as process:
            assert read_until(process.stdout, b"one\n") == b"one\n"
            first.process.kill()
            first.process.wait()
            with running_server(data, image, **settings):
                assert process.stdout.read() == b"two\n"
                assert process.wait() == 3
            assert process.stderr.read().count(b"running") == 1


@pytest.mark.full
@pytest.mark.parametrize("arguments", [("run",), ("follow", "--tail", "exe_1")])
def test_an_execution_whose_server_is_lost_is_named(lone_program, arguments):
    """Each program tries to reconnect for about 20 s."""
    requests = []

    def answer(request: Request) -> None:
        if request.command == "POST":
            request.body()
        requests.append(request.path)
        if len(requests) > 1:
            request.say("application/json", json.dumps({"error": "shutting down"}).encode(), 503)
            return
        request.say_events(("submitted", {"execution_id": "exe_1", "type": "submitted", "at": AT}))

    with canned(answer) as url:
        done = evolve(lone_program, server=url).run(*arguments, stdin=b"pass")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.endswith(
        b"python-executor: shutting down; exe_1 may still run: python-executor follow exe_1\n"
    )
    assert requests[-1] == "/api/v1/executions/exe_1/events"
