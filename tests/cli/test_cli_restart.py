"""Test `follow` while the server restarts."""

from attrs import evolve

from tests.cli.conftest import read_until
from tests.support.consul import free_ports
from tests.support.server import running_server

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
