"""Test submit, follow, logs, kill, list, timeline, cluster and eval."""

import json

import pytest

from tests.cli.conftest import read_until
from tests.support.cases import sampled

BYTES = b"import os, sys\nos.write(1, b'\\xff\\n')\nos.write(2, b'\\xfe\\n')\nsys.exit(3)"


@pytest.fixture
def ended(program) -> str:
    """The ID of an execution that has ended."""
    execution_id = program.run("submit", stdin=BYTES).stdout.decode().strip()
    assert program.run("follow", execution_id).returncode == 3
    return execution_id


def test_submit_prints_only_the_id(program):
    done = program.run("submit", stdin=b"print(1)")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"exe_")
    assert done.stdout.endswith(b"\n")
    assert json.loads(program.run("submit", "--json", stdin=b"print(1)").stdout)["execution_id"].startswith(
        "exe_"
    )


@pytest.mark.parametrize("tail", [(), ("--tail",)])
def test_follow_prints_the_output_and_returns_the_exit_code(program, ended, tail):
    done = program.run("follow", ended, *tail)
    assert (done.returncode, done.stdout) == (3, b"\xff\n")
    assert b"\xfe\n" in done.stderr
    assert b"submitted" in done.stderr
    assert b"completed" in done.stderr
    assert program.run("-q", "follow", ended, *tail).stderr == b"\xfe\n"


def test_follow_tail_prints_output_as_it_arrives(program):
    code = b"import time\nprint('up', flush=True)\ntime.sleep(600)"
    execution_id = program.run("submit", stdin=code).stdout.decode().strip()
    with program.started("follow", "--tail", execution_id) as process:
        read_until(process.stdout, b"up\n")
        assert program.run("kill", execution_id).stdout == b"killed\n"
        assert process.wait() == 125
        assert b"was killed" in process.stderr.read()


def test_logs_prints_raw_bytes(program, ended):
    assert sorted(program.run("logs", ended).stdout.splitlines()) == [b"\xfe", b"\xff"]
    assert program.run("logs", ended, "--stream", "stderr").stdout == b"\xfe\n"
    assert program.run("logs", "--follow", ended, "--stream", "stdout").stdout == b"\xff\n"


def test_kill_prints_the_status(program, ended):
    done = program.run("kill", ended)
    assert (done.returncode, done.stdout) == (0, b"completed\n")


def test_list(program, ended):
    assert ended.encode() in program.run("list", "--limit", "500").stdout
    entries = [
        json.loads(line)
        for line in program.run("list", "--json", "--status", "completed").stdout.splitlines()
    ]
    assert ended in [entry["execution_id"] for entry in entries]
    assert {entry["status"] for entry in entries} == {"completed"}
    assert len(program.run("-q", "list", "--limit", "1").stdout.splitlines()) == 1


def test_timeline_and_cluster(program, ended):
    done = program.run("timeline", ended)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[0].split() == ["TIME", "SECONDS", "EVENT", "REPLICA", "DETAILS"]
    events, phases = [[line.split() for line in lines[at : at + 99]] for at in (1, lines.index("") + 2)]
    assert [event[2] for event in events[:4]] == ["submitted", "claimed", "running", "finished"]
    assert lines[4].endswith("exit code 3")
    assert phases[-1][0] == "running"
    replica = json.loads(program.run("timeline", "--json", ended).stdout)["events"][-1]["replica"]
    listed = program.run("-q", "cluster").stdout.decode().splitlines()
    assert listed[0].split()[:3] == [replica, "ready", "leader"]
    assert listed[-1].split()[0] == "default"
    assert json.loads(program.run("cluster", "--json").stdout)["leader"] == replica


@sampled(
    ("code", "printed"),
    [("6 * 7", b"42\n"), ("print('x')", b"x\n"), ("print('x')\n'y'", b"x\n'y'\n"), ("x = 1", b"")],
    every=2,
)
def test_eval_prints_the_value(program, code, printed):
    done = program.run("eval", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")
    assert program.run("eval", "-", stdin=code.encode()).stdout == printed


def test_eval_takes_flags_and_arguments(program):
    code = "import os, sys\n(os.environ['A'], sys.argv[1:], sys.stdin.read())"
    done = program.run("eval", code, "-e", "A=1", "--stdin", "-", "--", "-x", stdin=b"in")
    assert done.stdout == b"('1', ['-x'], 'in')\n"
    assert json.loads(program.run("eval", "--json", "6 * 7").stdout)["result"] == "42"
    assert program.run("eval", "1 / 0").returncode == 1
