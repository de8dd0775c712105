"""Test the flags, before and after the command."""

import json
import secrets
import subprocess
import sys

import pytest

from tests.support.cases import sampled

SHOW = "import os, sys\nprint(os.environ.get('A'), os.environ.get('B'), sys.argv[1:], sys.stdin.read())"


def test_script_arguments_after_two_dashes(program):
    program.file("show.py", SHOW)
    assert program.run("show.py", "--", "-x", "--", "b c").stdout == b"None None ['-x', '--', 'b c'] \n"
    assert program.run("--", "a", stdin=SHOW.encode()).stdout == b"None None ['a'] \n"


def test_environment_variables(program):
    program.file("show.py", SHOW)
    done = program.run("show.py", "-e", "A=x=y", "--env", "B", B="from here")
    assert done.stdout == b"x=y from here [] \n"


@pytest.mark.parametrize("arguments", [("--stdin", "in.txt"), ("--stdin", "-")])
def test_stdin_of_the_program(program, arguments):
    program.file("show.py", SHOW)
    program.file("in.txt", "line\0\nno end")
    done = program.run("show.py", *arguments, stdin=b"line\0\nno end")
    assert done.stdout == b"None None [] line\0\nno end\n"


def test_entrypoint(program):
    program.file("p/main.py", "print('main')")
    program.file("p/jobs/other.py", "print('other')")
    assert program.run("p", "--entrypoint", "jobs/other.py").stdout == b"other\n"
    assert program.run("--entrypoint", "jobs/other.py", "p").stdout == b"other\n"


@sampled(
    "arguments",
    [
        ("--timeout", "1", "run", "x.py"),
        ("run", "x.py", "--timeout=1"),
        ("--timeout", "1", "x.py"),
        ("x.py", "--timeout", "1"),
        ("x.py", "--cpu-seconds", "0.2"),
        ("--timeout", "90", "run", "--timeout", "1", "x.py"),
        ("-qv", "--timeout", "1", "run", "x.py"),
    ],
)
def test_global_flags_before_or_after_the_command(program, arguments):
    program.file("x.py", "while True: pass")
    assert program.run(*arguments).returncode == 124


@sampled(
    "arguments",
    [
        ("-e", "A=1", "run", "show.py", "-e", "B=2"),
        ("-eA=1", "--env=B=2", "show.py"),
        ("-qe", "A=1", "-e", "B=2", "run", "show.py"),
        ("--stdin", "show.py", "--env", "A=1", "--timeout", "60", "-eB=2", "show.py", "--stdin", "empty"),
        ("--file", "show.py", "-e", "A=1", "-e", "B=2", "run"),
    ],
)
def test_script_flags_before_the_command(program, arguments):
    program.file("show.py", SHOW)
    program.file("empty")
    done = program.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1 2 [] \n", b"")


def test_the_command_is_found_after_flag_values(program):
    assert program.run("-e", "A=list", "eval", "import os; os.environ['A']").stdout == b"'list'\n"
    assert json.loads(program.run("--json", "list", "--limit", "1").stdout)["execution_id"]
    done = program.run("-e", "A=1", "kill", "exe_1")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"-e" in done.stderr


@sampled(
    ("flag", "field"),
    [
        ("--memory", b"memory_mb"),
        ("--disk", b"disk_mb"),
        ("--timeout", b"timeout_seconds"),
        ("--cpus", b"config.cpus"),
        ("--cpu", b"cpu_shares"),
    ],
    every=2,
)
def test_limits_reach_the_server(program, flag, field):
    done = program.run(flag, "999999999", stdin=b"print(1)")
    assert done.returncode == 2
    assert field in done.stderr


def test_the_image_reaches_the_server(program):
    done = program.run("--image", "no-such-image:nowhere", stdin=b"print(1)")
    assert done.returncode == 125
    assert b"image_unavailable" in done.stderr


def test_the_network_is_disabled_by_default(program):
    code = b"import os\nprint(sorted(os.listdir('/sys/class/net')))"
    assert program.run(stdin=code).stdout == b"['lo']\n"
    assert b"eth0" in program.run("--network", stdin=code).stdout


def test_json(program):
    done = program.run(
        "--json", stdin=b"import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)"
    )
    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 3)
    assert done.stderr == b""


def test_setup_output_is_printed_if_verbose(program):
    word = secrets.token_hex(8)  # a new command, because a cached environment prints nothing
    setup = program.run("-v", "--pre-command", f"echo {word}", stdin=b"print(1)")
    assert f"$ echo {word}\n{word}\n".encode() in setup.stderr
    assert program.run("--pre-command", f"echo new {word}", stdin=b"print(1)").stderr == b""


@sampled("verbose", [("-v",), ()])
def test_setup_output_is_printed_if_it_failed(program, verbose):
    done = program.run(*verbose, "--pre-command", "echo oh no; exit 3", stdin=b"print(1)")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.endswith(
        b"$ echo oh no; exit 3\noh no\n"
        b"python-executor: execution failed (setup_failed): pre_commands[0] failed with exit code 3\n"
    )
    assert done.stderr.count(b"oh no") == 2


@pytest.mark.full  # `run` and `eval` share this flag
def test_eval_with_a_pre_command(program):
    word = secrets.token_hex(8)
    code = "open('/opt/word').read()"
    done = program.run("eval", code, "--pre-command", f"printf {word} > /opt/word")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"'{word}'\n".encode(), b"")


def test_verbose_prints_the_steps_and_quiet_does_not(program):
    stderr = program.run("-v", stdin=b"print(1)").stderr
    assert b"submitted" in stderr
    assert b"running" in stderr
    assert program.run("-v", "-q", stdin=b"print(1)").stderr == b""


def test_async_prints_only_the_id(program):
    done = program.run("--async", stdin=b"print(1)")
    assert done.stdout.startswith(b"exe_")
    assert done.stdout.count(b"\n") == 1
    assert program.run("follow", "--tail", done.stdout.decode().strip()).stdout == b"1\n"


def test_the_server_flag_overrides_the_environment(lone_program, server):
    here = {"PYEXEC_SERVER": "http://127.0.0.1:1"}
    assert lone_program.run("--server", server.url, "run", stdin=b"print(1)", **here).stdout == b"1\n"
    assert lone_program.run("run", "--server", server.url + "/", stdin=b"print(1)", **here).stdout == b"1\n"
    assert lone_program.run(stdin=b"print(1)", PYEXEC_SERVER=server.url).stdout == b"1\n"


def test_help_and_version(lone_program):
    for arguments in (("--help",), ("run", "--help"), ("submit", "--help"), ("--version",), ("version",)):
        done = lone_program.run(*arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"python-executor" in done.stdout


def test_commands_that_run_nothing_do_not_list_run_flags(lone_program):
    for command in ("follow", "logs", "kill", "list", "version", "completion"):
        listed = lone_program.run(command, "--help").stdout
        assert b"--server" in listed
        assert not any(flag in listed for flag in (b"--timeout", b"--memory", b"--network", b"--async"))


def test_only_commands_that_detach_list_async(lone_program):
    for command in ("run", "submit", "eval", "repl", "session new"):
        listed = lone_program.run(*command.split(), "--help").stdout
        assert b"--memory" in listed
        assert (b"--async" in listed) == (command in ("run", "submit")), command


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            "--memory 64 list",
            "--memory: list runs nothing; run, submit, eval, session new and repl take this flag",
        ),
        ("session show ses_1 --cpus 1", "--cpus: session show runs nothing; run, submit, eval, "),
        ("kill exe_1 --async -q", "--async: kill runs nothing; run and submit take this flag"),
        ("version --timeout 5", "--timeout: version runs nothing; run, submit, eval, "),
    ],
)
def test_commands_that_run_nothing_reject_run_flags(lone_program, arguments, error):
    done = lone_program.run(*arguments.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"Error: {error}" in done.stderr.decode()


@sampled(
    ("arguments", "same"),
    [
        (("-h",), ("--help",)),
        (("-q", "-h"), ("--help",)),
        (("help",), ("--help",)),
        (("help", "kill"), ("kill", "--help")),
        (("help", "session", "new"), ("session", "new", "--help")),
        (("session", "help"), ("session", "--help")),
        (("session", "help", "new"), ("session", "new", "--help")),
        (("help", "help"), ("--help",)),
        (("kill", "-h"), ("kill", "--help")),
        (("-e", "A=1", "-h"), ("run", "--help")),
        (("-vh",), ("run", "--help")),
        (("-vh", "kill"), ("kill", "--help")),
        (("run", "--memory", "x", "-h"), ("run", "--help")),
    ],
)
def test_other_ways_to_ask_for_help(lone_program, arguments, same):
    done, wanted = lone_program.run(*arguments), lone_program.run(*same)
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted.stdout, b"")


@pytest.mark.parametrize("arguments", [("run", "--timeout"), ("project", "--network=yes")])
def test_wrong_values_of_flags_are_usage_errors(lone_program, arguments):
    done = lone_program.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"Usage: python-executor run ")


def test_the_version_loads_no_http_library():
    command = [sys.executable, "-X", "importtime", "-m", "pyexec_cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "asyncclick" in loaded
    assert loaded.isdisjoint({"aiohttp", "pyexec_client"})
