"""Test the inputs: `--file`, a .tar, a directory, a file, standard input."""

import os
import pty
import tarfile

import pytest

from pyexec_cli.statements import Statements
from tests.support.cases import sampled

LIST = "import os\nfor d, _, fs in sorted(os.walk('.')): print(d, sorted(fs))"


@sampled("arguments", [(), ("run",), ("-",), ("run", "-")], every=2)
def test_standard_input(program, arguments):
    done = program.run(*arguments, stdin=b"print('piped')")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"piped\n", b"")


@pytest.mark.parametrize("command", [(), ("run",)])
def test_a_file(program, command):
    program.file("tool.py", "print(__file__)")
    done = program.run(*command, "tool.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/work/tool.py\n", b"")


@pytest.mark.parametrize("name", ["tool", "._tool.py"])
def test_a_file_alone_runs_whatever_its_name_is(program, name):
    program.file(name, "print(__file__)")
    done = program.run(name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"/work/{name}\n".encode(), b"")


def test_a_directory(program):
    program.file("project/main.py", "from package import part\nprint(part.NAME)")
    program.file("project/package/part.py", "NAME = 'part'")
    assert program.run("project").stdout == b"part\n"
    assert program.run("run", "./project/").stdout == b"part\n"


def test_ignored_files_of_a_directory_are_not_sent(program):
    program.file("main.py", LIST)
    for name in (
        ".git/HEAD",
        "a/__pycache__/x.pyc",
        ".venv/x",
        "node_modules/x",
        "notes.txt",
        "a/b.log",
        "a/c",
    ):
        program.file(name)
    program.file(".dockerignore", "notes.txt\n**/*.log\n")
    assert program.run(".").stdout == b". ['.dockerignore', 'main.py']\n./a ['c']\n"


def test_a_tar(program):
    program.file("main.py", "print('from a tar')")
    with tarfile.open(program.directory / "code.tar", "w") as archive:
        archive.add(program.directory / "main.py", "main.py")
    assert program.run("code.tar").stdout == b"from a tar\n"


@sampled("line", ["$P code", "$P <code", "$P - <code", "$P <(cat code)", "$P submit code"], every=2)
def test_a_tar_without_the_suffix_is_rejected(lone_program, line):
    lone_program.file("main.py", "print(1)")
    with tarfile.open(lone_program.directory / "code", "w") as archive:
        archive.add(lone_program.directory / "main.py", "main.py")
    done = lone_program.shell(line)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b" is a tar archive: save it to a file whose name ends in .tar, and run that file\n" in done.stderr


def test_a_compressed_tar_is_rejected(program):
    program.file("main.py", "print(1)")
    with tarfile.open(program.directory / "code.tar.gz", "w:gz") as archive:
        archive.add(program.directory / "main.py", "main.py")
    done = program.run("code.tar.gz")
    assert done.returncode == 2
    assert b"gzip" in done.stderr


def test_named_files_keep_their_relative_paths(program):
    program.file("main.py", LIST)
    program.file("utils/helpers.py")
    program.file("data/x.bin", b"\0")
    done = program.run("--file", "main.py", "--file", "utils/helpers.py", "--file", "./data/x.bin")
    assert done.stdout == b". ['main.py']\n./data ['x.bin']\n./utils ['helpers.py']\n"


def test_named_files_outside_the_working_directory_are_sent_by_bare_name(program):
    outside = program.directory / "outside"
    program.file("here/x", "")
    program.file("outside/main.py", LIST)
    done = program.shell(
        f"cd here && $P --file x --file ../outside/main.py --file {program.directory}/here/x"
    )
    assert done.returncode == 2
    assert b"x was already given" in done.stderr
    done = program.shell(f"cd here && $P --file x --file {outside}/main.py")
    assert done.stdout == b". ['main.py', 'x']\n"


def test_precedence_of_inputs(program):
    program.file("main.py", "print('file')")
    program.file("other.py", "print('argument')")
    done = program.run("--file", "main.py", "other.py", stdin=b"print('piped')")
    assert done.stdout == b"file\n"
    assert b"ignoring other.py: with --file, only the files that it names are sent\n" in done.stderr
    assert program.run("other.py", stdin=b"print('piped')").stdout == b"argument\n"


def test_process_substitution(program):
    assert program.shell("$P <(echo 'print(5)')").stdout == b"5\n"


def test_a_file_named_like_a_command(program):
    program.file("list", "print('mine')")
    program.file("main.py", "")
    assert program.run("./list", "--entrypoint", "list").stdout == b"mine\n"


@sampled("arguments", [(), ("run",), ("submit",)], every=2)
def test_empty_standard_input_is_an_error(program, arguments):
    done = program.run(*arguments)
    assert done.returncode == 2
    assert b"standard input is empty" in done.stderr
    assert done.stdout == b""


def test_a_terminal_is_not_read(program):
    controller, terminal = pty.openpty()
    try:
        done = program.run(stdin=terminal)
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 2
    assert b"nothing to run" in done.stderr


def test_closed_standard_input_is_an_error(program):
    done = program.shell("$P <&-")
    assert done.returncode == 2
    assert b"nothing to run" in done.stderr


@pytest.mark.parametrize("arguments", [("project/",), ("submit", "project")])
def test_an_empty_directory_is_an_error(program, arguments):
    (program.directory / "project").mkdir()
    done = program.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"python-executor: project: the directory is empty\n"
    program.file("project/.git/HEAD")
    done = program.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"python-executor: project: every file is ignored: .git, ")


@sampled(
    ("arguments", "message"),
    [
        (("missing.py",), b"missing.py"),
        (("--file", "missing.py"), b"missing.py"),
        (("--file", "."), b"not a regular file"),
        (("--file", "x", "--file", "./x"), b"x was already given"),
        (("x", "y"), b"after --"),
        (("x", "--requirements", "missing.txt"), b"missing.txt"),
        (("x", "--requirements", "x", "--no-requirements"), b"cannot be used together"),
        (("x", "--stdin", "missing"), b"missing"),
        (("x", "--stdin", "binary"), b"UTF-8"),
        (("-", "--stdin", "-"), b"--stdin"),
        (("x", "-e", "=v"), b"name missing"),
        (("x", "-e", "NOT_SET_ANYWHERE"), b"not set"),
        (("x", "--timeout", "0"), b"--timeout 0: must be a positive number, in seconds\n"),
        (("x", "--timeout", "soon"), b"--timeout soon: must be a positive number, in seconds\n"),
        (("x", "--memory", "-1"), b"--memory -1: must be a positive integer, in MiB\n"),
        (("--memory", "abc", "x"), b"--memory abc: must be a positive integer, in MiB\n"),
        (("x", "--disk", "1.5"), b"--disk 1.5: must be a positive integer, in MiB\n"),
        (("x", "--cpu", "0"), b"--cpu 0: must be a positive integer\n"),
        (("x", "--cpus", "0"), b"--cpus 0: must be a positive number\n"),
        (("x", "--cpus", "inf"), b"--cpus inf: must be a positive number\n"),
        (("x", "--timeout", "1e400"), b"--timeout 1e400: must be a positive number, in seconds\n"),
        (("x", "--timeout", "0x1p3"), b"--timeout 0x1p3: must be a positive number, in seconds\n"),
        (("x", "--timeout", "1_0"), b"--timeout 1_0: must be a positive number, in seconds\n"),
        (("x", "--memory", "1_024"), b"--memory 1_024: must be a positive integer, in MiB\n"),
        (("x", "--memory", "٣٢"), "--memory ٣٢: must be a positive integer, in MiB\n".encode()),
        (("list", "--limit", "0"), b"--limit 0: must be a positive integer\n"),
        (("x", "--nonsense"), b"--nonsense"),
        (("x", "--server", "localhost"), b"http://"),
        (("eval",), b"CODE"),
        (("eval", "1", "--async"), b"--async"),
        (("follow",), b"ID"),
    ],
)
def test_wrong_usage(program, arguments, message):
    program.file("x", "print(1)")
    program.file("binary", b"\xff")
    done = program.run(*arguments, stdin=b"print(1)")
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr


def test_a_directory_without_python_files_is_rejected_by_the_server(program):
    program.file("empty/readme.txt")
    done = program.run("empty")
    assert done.returncode == 2
    assert b".py" in done.stderr


def test_requirements_at_the_root_are_installed(program):
    program.file("project/main.py", "print(1)")
    program.file("project/requirements.txt", "\n")
    assert program.run("project").stderr == b""  # it lists no packages
    program.file("project/requirements.txt", "wheel-that-is-nowhere")
    first, *output, last = program.run("project").stderr.splitlines()
    assert b"requirements.txt" in first
    assert b"$ uv pip install -r requirements.txt" in output
    # The reason is part of the output, and is not printed again.
    assert last[:-1].endswith(b"(setup_failed): installing the requirements failed with exit code ")
    done = program.run("project", "--no-requirements")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")


def test_an_unreadable_file_is_named(program):
    program.file("main.py", "print(1)")
    (program.directory / "loop").symlink_to("loop")
    done = program.run("loop")
    assert done.returncode == 2
    assert b"loop" in done.stderr


def test_a_large_script_is_sent_completely(program):
    comment = b"#" * (3 * 1024 * 1024)
    done = program.run(stdin=comment + b"\nprint(len(open(__file__).read()))")
    assert int(done.stdout) > len(comment)


def test_an_upload_that_the_server_rejects_midway(program):
    program.file("project/main.py", "print(1)")
    program.file("project/data.bin", b"x" * 30_000_000)
    done = program.run("project", "--disk", "1")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"disk_mb" in done.stderr


def split(code: str) -> list[str]:
    """Return the statements of a file, as `repl` does."""
    statements, found = Statements(from_file=True), []
    for line in code.split("\n"):
        found += [statements.take_before(line), statements.add(line)]
    if not statements.is_empty:
        found.append(statements.take())
    return [each for each in found if each is not None]


@pytest.mark.parametrize(
    ("first", "line", "last"),
    [("x = {", "  'k': [1, \"v\"],", "}"), ("class A:", "  def f(self): return (\n  1)", "")],
)
def test_a_long_statement_of_a_file_is_parsed_a_few_times(monkeypatch, first, line, last):
    parsed = []
    is_complete = Statements._is_complete
    monkeypatch.setattr(
        Statements, "_is_complete", lambda self, lines: parsed.append(1) or is_complete(self, lines)
    )
    long = "\n".join([first, *[line] * 3000, last])
    assert split(f"{long}\nprint(x)") == [long, "print(x)"]
    assert len(parsed) < 5
