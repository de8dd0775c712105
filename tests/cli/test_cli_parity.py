"""Compare both programs: they print the same bytes on both streams, and exit with the same code."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAMS, Program
from tests.support.canned import canned
from tests.support.cases import sampled
from tests.support.paths import WIRE

ID = re.compile(rb"exe_[0-9a-f]{32}")
MOMENTS = re.compile(rb'"(created_at|started_at|finished_at)": "[^"]*"')
FIGURES = re.compile(rb'"(duration_ms|queue|setup|run|cpu_seconds|peak_memory_bytes)": [0-9.e-]+')
LINES = re.compile(rb"Z +[0-9.]+ s\n|T[0-9:]+Z")

WITH_A_SERVER = [
    ("run", "print('grüße \\U0001f600 \"\\\\ \\t')"),
    ("run --json", "import sys\nprint('grüße \\U0001f600 \"\\\\ \\t \\x01 \\x7f')\nsys.exit(3)"),
    ("run --json", "1 / 0"),
    ("run --json --timeout 1", "while True: pass"),
    ("run --timeout 1.5", "print('x', flush=True)\nwhile True: pass"),
    ("run --timeout=1e0", "while True: pass"),
    ("run --cpus 0.5 --cpus 1", "print(1)"),
    ("run --memory 64", "x = bytearray(500_000_000)"),
    ("run --memory 1", "pass"),
    ("run --disk 999999999", "pass"),
    ("run --image no-such-image:nowhere", "pass"),
    ("run --image Wrong", "pass"),
    ("run --entrypoint missing.py", "pass"),
    ("run --entrypoint ../x.py", "pass"),
    ("run -e A=1 -e B -e A=3", "import os\nprint({k: v for k, v in os.environ.items() if k in 'AB'})"),
    ("run -v", "print(1)"),
    ("-v submit --json", "pass"),
    ("eval 6*7", ""),
    ("eval --json 6*7", ""),
    ("eval 1/0", ""),
    ("eval None", ""),
    ("eval nothing/readme.txt", ""),
    ("run", "input()"),
    ("run", "import os; os.kill(os.getpid(), 11)"),
    ("eval --output-file ../x 1", ""),
    ("eval --output-file * --output-dir got -v open('x','w').close()", ""),
    ("run", "import socket\nsocket.create_connection(('192.0.2.1', 80), 5)"),
    ("empty", ""),
    ("eval - -- a b", "import sys\nsys.argv"),
    ("eval --timeout 1 x", ""),
    ("list --limit 3 -q", ""),
    ("list --limit 2", ""),
    ("list --limit 2 --json", ""),
    ("list --status killed --limit 1 --json", ""),
    ("kill exe_00000000000000000000000000000000", ""),
    ("logs exe_00000000000000000000000000000000", ""),
    ("follow exe_00000000000000000000000000000000", ""),
    ("timeline exe_00000000000000000000000000000000", ""),
    ("--token wrong list --limit 1 -q", ""),
    ("project", ""),
    ("project --file main.py", ""),
    ("nothing", ""),
    ("code.tar.gz", ""),
    ("--file project/main.py --file project/main.py", ""),
]
WITHOUT_A_SERVER = [
    ("", ""),
    ("missing.py", ""),
    ("run missing.py", ""),
    ("-e A=1 run project project", ""),
    ("project --memory abc", ""),
    ("list --limit 0", ""),
    ("submit project --output-file x --output-dir x", ""),
    ("project project", ""),
    ("--file missing.py", ""),
    ("--file project", ""),
    ("- --stdin -", "x"),
    ("project --stdin missing", ""),
    ("project --stdin project", ""),
    ("project --requirements binary", ""),
    ("project --requirements project/main.py --no-requirements", ""),
    ("project -e =v", ""),
    ("project -e NOT_SET", ""),
    ("project -e A=\udcff", ""),
    ("project -- a \udcff", ""),
    ("project --output-dir=", ""),
    ("project --stdin=", ""),
    ("project --requirements=", ""),
    ("project --entrypoint=", ""),
    ("project --file=", ""),
    ("submit project --output-dir=", ""),
    ("eval 1 --stdin=", ""),
    ("project --server localhost", ""),
    ("project --server http://127.0.0.1:1/?x=1", ""),
    ("project --server http://127.0.0.1:1/base#part", ""),
    ("project --server http://127.0.0.1:99999", ""),
    ("project --server http://[::1", ""),
    ("project --memory 99999999999999999999", ""),
    ("project --cpus 99999999999999999999", ""),
    ("eval", ""),
    ("eval 1 --async", ""),
    ("eval 1 2", ""),
    ("follow", ""),
    ("kill a b", ""),
    ("list x", ""),
    ("cluster x", ""),
    ("timeline", ""),
    ("timeline ../x", ""),
    ("kill ../x", ""),
    ("version", ""),
    ("--version", ""),
    ("version x", ""),
    ("version --cpus 1", ""),
    ("list --memory 1", ""),
    ("session list --timeout 3", ""),
    ("session --network list", ""),
    ("session bogus", ""),
    ("run --timeout", ""),
    ("run -e", ""),
    ("project --network=yes", ""),
    ("session upload ses_1", ""),
    ("session upload ses_1 -", ""),
    ("session upload ses_1 - sub/", ""),
    ("session download ses_1", ""),
    ("session files ses_1 a b", ""),
    ("session interrupt ../x", ""),
    ("--timeout 5 --network follow exe_1 --image x", ""),
    ("session close ses_1 --async", ""),
    ("mcp --disk 1", ""),
    ("repl --session ses_1 --memory 1", ""),
    ("repl --session ses_1 --env A=1", ""),
    ("--server http://127.0.0.1:1 project", ""),
    ("--server http://127.0.0.1:1/base/ list", ""),
    ("--server http://no-such-host.invalid list", ""),
]


@pytest.fixture
def both(paths: dict[str, Path], tmp_path: Path) -> list[Program]:
    programs = [Program(name, paths[name], None, tmp_path) for name in PROGRAMS]
    programs[0].file("project/main.py", "print('project')")
    programs[0].file("project/requirements.txt", " \n")
    programs[0].file("nothing/readme.txt", "")
    programs[0].file("empty/.git/HEAD", "")
    programs[0].file("code.tar.gz", b"\x1f\x8b\x08\0")
    programs[0].file("binary", b"text \xff")
    return programs


def behaviour(program: Program, arguments: str, stdin: str, **environment: str) -> tuple[int, bytes, bytes]:
    done = program.run(*arguments.split(), stdin=stdin.encode(), B="from here", **environment)
    # The usage lines differ, because each library has its own layout. Compare only the error message.
    stderr = done.stderr[done.stderr.find(b"Error: ") :] if b"Error: " in done.stderr else done.stderr
    return done.returncode, normal(done.stdout), normal(stderr)


def normal(output: bytes) -> bytes:
    """Remove times, figures and IDs, which differ from run to run."""
    for pattern in (MOMENTS, FIGURES, LINES):
        output = pattern.sub(b"", output)
    return ID.sub(b"exe_", output)


@sampled(("arguments", "stdin"), WITH_A_SERVER)
def test_with_a_server(both, server, arguments, stdin):
    first, second = [behaviour(each, arguments, stdin, PYEXEC_SERVER=server.url) for each in both]
    assert first == second


HELP_OF = [
    "",
    "run",
    "submit",
    "follow",
    "logs",
    "kill",
    "list",
    "timeline",
    "cluster",
    "eval",
    "mcp",
    "version",
    "completion",
    "repl",
    "session new",
    "session list",
    "session show",
    "session interrupt",
    "session restart",
    "session files",
    "session upload",
    "session download",
    "session delete",
    "session close",
]
FLAG = re.compile(r" +(?:-\w, )?(--[a-z-]+)(?: \S+)?(?: {2,}(.*))?")
COMMAND = re.compile(r"  ([a-z]+) {2,}(.*)")
NO_MCP = " (not in this program)"
"""The error of the Go program for the command `mcp`."""


def help_of(program: Program, command: str) -> tuple[str, dict[str, str]]:
    """Return the description of a command, and of each flag and command that its help lists."""
    text = program.run(*command.split(), "--help").stdout.decode().replace(NO_MCP, "")
    before_usage, _, after_usage = text.partition("Usage:")
    about = before_usage or after_usage.partition("\n\n")[2].partition("\n\nOptions:")[0]
    entries: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        if found := FLAG.fullmatch(line) or COMMAND.fullmatch(line):
            name = found[1]
            entries[name] = found[2] or ""
        elif name and line.startswith(" " * 10):  # the description continues
            entries[name] += f" {line.strip()}"
        else:
            name = None
    return " ".join(about.split()), {name: " ".join(text.split()) for name, text in entries.items()}


@sampled("command", HELP_OF)
def test_help(both, command):
    first, second = [help_of(each, command) for each in both]
    assert first == second
    assert {"--server", "--help"} <= first[1].keys()


@pytest.mark.parametrize("command", ["", "mcp"])
def test_only_the_help_of_the_go_program_says_that_it_does_not_serve_mcp(both, command):
    shown = [NO_MCP in each.run(*command.split(), "--help").stdout.decode() for each in both]
    assert shown == [each.name == "go" for each in both]


@sampled("command", HELP_OF, every=8)
def test_a_process_that_is_executed_does_the_same_as_a_forked_one(both, command):
    """Most tests fork the Python program."""
    done = [run(*command.split(), "--help") for run in (both[0].execute, both[0].run)]
    assert len({(each.returncode, each.stdout, each.stderr) for each in done}) == 1
    wrong = [run(*command.split(), "--no-such-flag") for run in (both[0].execute, both[0].run)]
    assert [each.returncode for each in wrong] == [2, 2]
    assert wrong[0].stderr == wrong[1].stderr


CLUSTERS, TIMELINES = [
    [case[kind] for case in json.loads((WIRE / f"{kind}s.json").read_text())]
    for kind in ("cluster", "timeline")
]
EVIL_QUEUE = [{"tenant": "grüße\x1b[2J\u202e", "waiting": 10**9, "running": 0}]
STATES_AND_TIMELINES = [
    *[("cluster", state) for state in CLUSTERS],
    *[("timeline exe_1", timeline) for timeline in TIMELINES],
    ("-q cluster", CLUSTERS[0]),
    ("timeline --json exe_1", TIMELINES[0]),
    ("cluster", CLUSTERS[0] | {"queue": EVIL_QUEUE}),
    ("cluster --json", CLUSTERS[1] | {"queue": EVIL_QUEUE, "newer": {"a": 1.5}}),
    ("timeline exe_1", {"id": "exe_1", "events": [], "phases": []}),
    ("cluster", {"replicas": 1}),
    ("timeline exe_1", {"events": []}),
]


@sampled(("arguments", "document"), STATES_AND_TIMELINES)
def test_states_and_timelines(both, arguments, document):
    with canned(lambda request: request.say("application/json", json.dumps(document).encode())) as url:
        done = [each.run(*arguments.split(), PYEXEC_SERVER=url) for each in both]
    # The message for an invalid document depends on the language.
    assert (done[0].returncode, done[0].stdout) == (done[1].returncode, done[1].stdout)
    assert b"\x1b" not in done[0].stdout
    if done[0].returncode == 0 and "--json" in arguments:
        assert json.loads(done[0].stdout) == document


def test_an_empty_argument_is_an_error(both):
    done = [each.run("") for each in both]
    assert done[0].returncode == 2
    assert {each.stderr[each.stderr.find(b"Error: ") :] for each in done} == {
        b"Error: : no such file, directory or command\n"
    }


@sampled("arguments", ["get exe_1", "show x y", "run missing.py x", "submit missing.py x"])
def test_a_missing_input_is_reported_before_a_second_argument(both, arguments):
    done = [each.run(*arguments.split()) for each in both]
    name = arguments.removeprefix("run ").removeprefix("submit ").split()[0]
    assert [each.returncode for each in done] == [2, 2]
    assert {each.stderr[each.stderr.find(b"Error: ") :].decode() for each in done} == {
        f"Error: {name}: no such file, directory or command\n"
    }


GO_AFTER = " Arguments of the script go after --."


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("kil exe_1", "kil: no such file, directory or command; did you mean 'kill'?"),
        ("timline", "timline: no such file, directory or command; did you mean 'timeline'?"),
        ("tïmélïne", "tïmélïne: no such file, directory or command; did you mean 'timeline'?"),
        ("kill.py", "kill.py: no such file, directory or command"),
        ("session clsoe ses_1", "No such command 'clsoe'. Did you mean 'close'?"),
        (
            "run --tiemout=3",
            f"No such option '--tiemout'. (Did you mean one of: '--quiet', '--timeout'?){GO_AFTER}",
        ),
        ("list --statu failed", "No such option '--statu'. Did you mean '--status'?"),
        ("run --webhok", f"No such option '--webhok'. Did you mean '--webhook-url'?{GO_AFTER}"),
        ("run --xyzzy", f"No such option '--xyzzy'.{GO_AFTER}"),
        ("run -qz", f"No such option '-z'.{GO_AFTER}"),
        ("-c print(1)", "No such option '-c'. eval runs source text."),
        ("print(1)", "print(1): no such file, directory or command; eval runs source text"),
        ("list --asyn", "No such option '--asyn'. Did you mean '--json'?"),
        ("session list --memry", "No such option '--memry'."),
        ("help kil", "No such command 'kil'. Did you mean 'kill'?"),
        ("help session nw", "No such command 'nw'. Did you mean 'new'?"),
    ],
)
def test_the_nearest_name_is_suggested_for_a_mistyped_one(both, arguments, error):
    done = [behaviour(each, arguments, "") for each in both]
    assert done == [(2, b"", f"Error: {error}\n".encode())] * 2


@sampled(("arguments", "stdin"), WITHOUT_A_SERVER)
def test_without_a_server(both, arguments, stdin):
    first, second = [behaviour(each, arguments, stdin) for each in both]
    assert first == second


def test_a_directory_is_sent_identically(both, server):
    show = "[(f, oct(os.stat(d + '/' + f).st_mode), os.stat(d + '/' + f).st_mtime_ns) for f in sorted(fs)]"
    first = both[0]
    for name in ("a/b.sh", "a/ü.txt", "a/" + 30 * "long/" + "name.py", ".git/x", "a/.venv/y", "c.log"):
        first.file(f"tree/{name}", name)
    first.file("tree/.dockerignore", "*.log\n")
    first.file("tree/main.py", f"import os\nfor d, ds, fs in sorted(os.walk('.')): print(d, ds, {show})")
    (first.directory / "tree/a/b.sh").chmod(0o755)
    (first.directory / "tree/link").symlink_to("main.py")
    (first.directory / "tree/empty").mkdir()
    outputs = [each.run("tree", PYEXEC_SERVER=server.url).stdout for each in both]
    assert b"name.py" in outputs[0]
    assert outputs[0] == outputs[1]


def test_a_file_name_that_is_not_utf8_is_sent_unchanged(both, server):
    both[0].file("tree/main.py", "")
    (both[0].directory / "tree" / os.fsdecode(b"\xff.py")).touch()
    first, second = [behaviour(each, "tree", "", PYEXEC_SERVER=server.url) for each in both]
    assert b"\\xff.py" in first[2]
    assert first == second
