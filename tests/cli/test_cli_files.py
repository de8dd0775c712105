"""Test `--output-file` and `--output-dir`."""

import io
import json
import tarfile

import pytest
from attrs import evolve

from pyexec.domain.output_files import SkipReason
from tests.support.canned import Request, canned
from tests.support.cases import sampled


def tar(**members: tarfile.TarInfo | bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(header, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def run_with_output_files(lone_program):
    """Run a program whose server returns these output files, and return the metadata of its request too."""

    def start(members: dict[str, bytes], *arguments: str, truncated: bool = False, **more: object):
        metadata = []
        listed = [{"path": name, "size": len(content)} for name, content in members.items()]
        end = {
            "execution_id": "exe_1",
            "status": "completed",
            "exit_code": 3,
            "files": listed,
            "files_truncated": truncated,
            **more,
        }

        def answer(request: Request) -> None:
            if request.command == "POST":
                start, _ = request.body()
                metadata.append(json.loads(start.split(b"\r\n\r\n", 2)[1].split(b"\r\n--")[0]))
                request.say_events(("submitted", {"execution_id": "exe_1"}), ("finished", end))
            else:
                assert request.path == "/api/v1/executions/exe_1/files"
                request.say("application/x-tar", tar(**members))

        lone_program.file("main.py", "pass")
        with canned(answer) as url:
            done = evolve(lone_program, server=url).run("main.py", *arguments)
        return done, metadata[0] if metadata else None

    return start


def test_files_are_written_to_the_output_directory(run_with_output_files, lone_program):
    members = {"out/a.csv": b"1,2\n", "tool.sh": b"#!/bin/sh\n", "grüße.txt": b""}
    done, metadata = run_with_output_files(
        members, "--output-file", "out/*.csv", "--output-file", "*", "--output-dir", "got/here"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    assert metadata["output_files"] == ["out/*.csv", "*"]
    root = lone_program.directory / "got" / "here"
    written = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert written == members
    assert (root / "tool.sh").stat().st_mode & 0o100
    assert not (root / "out" / "a.csv").stat().st_mode & 0o100


def test_files_go_to_the_current_directory_and_replace_existing_ones(run_with_output_files, lone_program):
    lone_program.file("a.txt", "older and longer")
    done, _ = run_with_output_files({"a.txt": b"new"}, "--output-file", "a.txt", "-v", truncated=True)
    assert (lone_program.directory / "a.txt").read_text() == "new"
    assert b"python-executor: wrote a.txt\n" in done.stderr
    assert (
        b"python-executor: some output files are missing: they exceed the size limit, or could not be collected\n"
        in done.stderr
    )


def test_skipped_files_are_reported(run_with_output_files):
    skipped = [
        {"pattern": "out/*.csv", "reason": "no_match"},
        {"pattern": "*.log", "reason": "too_many"},
        {"path": "passwd", "reason": "link_outside"},
        {"path": "grüße", "reason": "of_a_newer_server"},
    ]
    done, _ = run_with_output_files({}, "--output-file", "*", truncated=True, files_skipped=skipped)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode().splitlines() == [
        "python-executor: no file matches 'out/*.csv'",
        "python-executor: files are missing for '*.log': the limit on the number of files is exceeded",
        "python-executor: skipped 'passwd': the link leads out of /work",
        "python-executor: skipped 'grüße': of_a_newer_server",
    ]
    done, _ = run_with_output_files({}, "-q", "--output-file", "*", truncated=True, files_skipped=skipped)
    assert (done.returncode, done.stderr) == (3, b"")


def test_the_reports_of_skipped_files_are_bounded(run_with_output_files):
    skipped = [{"path": f"{number}", "reason": "not_a_file"} for number in range(100)]
    done, _ = run_with_output_files({"a.txt": b"x"}, "--output-file", "*", files_skipped=skipped)
    lines = done.stderr.decode().splitlines()
    assert lines[:10] == [f"python-executor: skipped '{number}': not a regular file" for number in range(10)]
    assert lines[10:] == ["python-executor: more output files were skipped"]
    done, _ = run_with_output_files(
        {}, "--output-file", "*", files_skipped=skipped[:1], files_skipped_truncated=True
    )
    assert done.stderr.decode().splitlines()[1:] == ["python-executor: more output files were skipped"]


def test_every_reason_of_the_server_has_a_sentence(run_with_output_files):
    skipped = [{"path": "x", "reason": reason} for reason in SkipReason if reason is not SkipReason.NO_MATCH]
    for part in (skipped[:6], skipped[6:]):
        done, _ = run_with_output_files({}, "--output-file", "*", files_skipped=part)
        lines = done.stderr.decode().splitlines()
        assert len(lines) == len(part)
        assert not any("_" in line for line in lines)


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside-of-it-all.txt", "a/../../outside.txt"])
def test_unsafe_paths_are_rejected(run_with_output_files, lone_program, name):
    done, _ = run_with_output_files({name: b"x"}, "--output-file", "*", "--output-dir", "inside")
    assert done.returncode == 125
    assert b"outside" in done.stderr
    assert not list(lone_program.directory.rglob("*outside*"))


def test_an_unwritable_output_directory_is_an_error(run_with_output_files, lone_program):
    lone_program.file("taken", "a file")
    done, _ = run_with_output_files({"a.txt": b"x"}, "--output-file", "*", "--output-dir", "taken")
    assert done.returncode == 125
    assert b"taken" in done.stderr


def test_eval_downloads_output_files(program):
    done = program.run("eval", "open('a.txt', 'w').write('x')", "--output-file", "*", "--output-dir", "got")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")
    assert (program.directory / "got/a.txt").read_text() == "x"


def test_follow_downloads_the_files_of_a_submitted_execution(program):
    program.file("main.py", "open('a.txt', 'w').write('x')\nraise SystemExit(3)")
    execution_id = program.run("submit", "main.py", "--output-file", "*.txt").stdout.decode().strip()
    done = program.run("follow", execution_id)
    assert done.returncode == 3
    hint = f"python-executor: output files available: use follow {execution_id} --output-dir DIR\n"
    assert done.stderr.endswith(hint.encode())
    assert not (program.directory / "a.txt").exists()
    for tail in ((), ("--tail",)):
        got = f"got{len(tail)}"
        done = program.run("-q", "follow", execution_id, *tail, "--output-dir", got)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
        assert (program.directory / got / "a.txt").read_text() == "x"


def test_files_that_do_not_come_back_are_reported(program):
    program.file("main.py", "import os; os.symlink('/etc/passwd', 'link')")
    arguments = ("main.py", "--output-file", "out/*.csv", "--output-file", "link")
    notes = [
        b"python-executor: no file matches 'out/*.csv'",
        b"python-executor: skipped 'link': the link leads out of /work",
    ]
    done = program.run(*arguments)
    assert (done.returncode, done.stderr.splitlines()) == (0, notes)
    execution_id = program.run("submit", *arguments).stdout.decode().strip()
    for more in ((), ("--output-dir", "got")):
        done = program.run("follow", execution_id, *more)
        assert (done.returncode, done.stderr.splitlines()[-2:]) == (0, notes)


def test_follow_without_output_files(program):
    execution_id = program.run("submit", stdin=b"pass").stdout.decode().strip()
    done = program.run("follow", execution_id, "--output-dir", "got")
    assert done.returncode == 0
    expected = b"python-executor: no output files: submit had no --output-file, or no file matched\n"
    assert done.stderr.endswith(expected)
    assert not (program.directory / "got").exists()


@pytest.mark.parametrize("arguments", [("submit",), ("--async",)])
def test_submit_explains_how_to_download_files(lone_program, arguments):
    lone_program.file("main.py")
    done = lone_program.run(*arguments, "main.py", "--output-file", "*", "--output-dir", "out")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"use follow ID --output-dir DIR\n" in done.stderr


@sampled(
    "arguments",
    [
        ("submit", "main.py", "--output-file", "*", "--output-dir", "out"),
        ("--async", "main.py", "--output-file", "*", "--output-dir", "out"),
    ],
    every=2,
)
def test_submit_refuses_an_output_dir(program, arguments):
    program.file("main.py", "pass")
    done = program.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--output-dir" in done.stderr
