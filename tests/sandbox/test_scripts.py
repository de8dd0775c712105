"""Test programs that misbehave: each ends as docs/api.md says, keeps its output, and leaves nothing running."""

import signal
from collections.abc import AsyncIterator

import pytest

from tests.support.api import Api, api_of
from tests.support.cases import sampled
from tests.support.containers import deployment_of, until_containers
from tests.support.server import Server

WARM = 2
MEBIBYTE = 1024 * 1024


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with api_of(server.url) as client:
        yield client


async def test_output_without_a_final_newline_is_unchanged(api: Api) -> None:
    result = await api.run("import sys; sys.stdout.write('out'); sys.stderr.write('err')")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out", "err", 0)


async def test_invalid_utf8_is_replaced_in_the_result_and_kept_in_the_logs(api: Api) -> None:
    result = await api.run("import sys; sys.stdout.buffer.write(b'a\\xff\\xfe\\x00b')")
    assert (result["status"], result["stdout"]) == ("completed", "a\ufffd\ufffd\0b")
    async with api.session.get(f"/api/v1/executions/{result['execution_id']}/logs") as response:
        assert await response.read() == b"a\xff\xfe\x00b"


@sampled("stream", ["stdout", "stderr"], every=2)
async def test_fifty_megabytes_of_output_are_too_much(api: Api, stream: str) -> None:
    result = await api.run(f"import sys\nfor _ in range(50): sys.{stream}.write('x' * {MEBIBYTE})")
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "output_limit", 137)
    assert str(10 * MEBIBYTE) in result["error"]
    assert result[stream] == "x" * (10 * MEBIBYTE)
    assert result["truncated"][stream] is True


async def test_output_just_at_the_limit_is_whole(api: Api) -> None:
    result = await api.run(f"import sys; sys.stdout.write('x' * {10 * MEBIBYTE})")
    assert (result["status"], result["exit_code"]) == ("completed", 0)
    assert len(result["stdout"]) == 10 * MEBIBYTE
    assert result["truncated"] == {"stdout": False, "stderr": False}


async def test_both_streams_count_together(api: Api) -> None:
    half = 6 * MEBIBYTE
    source = f"import sys; sys.stdout.write('o' * {half}); sys.stdout.flush(); sys.stderr.write('e' * {half})"
    result = await api.run(source)
    assert result["error_type"] == "output_limit"
    assert len(result["stdout"]) + len(result["stderr"]) == 10 * MEBIBYTE


async def test_closing_stdout_does_not_end_the_run(api: Api) -> None:
    result = await api.run("import os, sys; os.close(1); print('still here', file=sys.stderr); os._exit(4)")
    assert (result["status"], result["exit_code"], result["stderr"]) == ("completed", 4, "still here\n")


async def test_closing_both_streams_does_not_end_the_run(api: Api) -> None:
    result = await api.run(
        "import os, time; os.close(1); os.close(2); time.sleep(0.3); open('/work/x', 'w'); os._exit(5)"
    )
    assert (result["status"], result["exit_code"]) == ("completed", 5)


@sampled("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT, signal.SIGABRT], every=2)
async def test_the_exit_code_of_a_signal_is_128_plus_its_number(api: Api, number: signal.Signals) -> None:
    source = f"import os, signal; print('before'); signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), {number:d})"
    result = await api.run(source)
    assert (result["status"], result["exit_code"]) == ("completed", 128 + number)
    assert result["stdout"] == "before\n"
    assert "error_type" not in result


@sampled(("code", "seen"), [("256", 0), ("257", 1), ("-1", 255), ("255", 255), ("124", 124), ("'no'", 1)])
async def test_exit_codes_are_a_byte(api: Api, code: str, seen: int) -> None:
    result = await api.run(f"import sys; sys.exit({code})")
    assert (result["status"], result["exit_code"]) == ("completed", seen)
    assert "error_type" not in result


LEAVES_CHILDREN = """
import subprocess, sys
for _ in range(3):
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])
print('gone')
"""
DAEMONIZES = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for n in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), n)
time.sleep(3600)
"""
IGNORES_SIGTERM = """
import os, signal, time
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print('deaf', flush=True)
while True:
    time.sleep(3600)
"""


async def test_children_left_behind_are_killed(api: Api, server: Server) -> None:
    result = await api.run(LEAVES_CHILDREN)
    assert (result["status"], result["exit_code"], result["stdout"]) == ("completed", 0, "gone\n")
    await until_containers(deployment_of(server.data_dir), WARM)


async def test_a_daemon_ends_with_the_program_that_started_it(api: Api, server: Server) -> None:
    result = await api.run(DAEMONIZES)
    assert (result["status"], result["exit_code"]) == ("completed", 0)
    await until_containers(deployment_of(server.data_dir), WARM)


async def test_output_of_a_child_before_the_end_is_kept(api: Api) -> None:
    source = "import subprocess; subprocess.run(['/bin/sh', '-c', 'echo child; echo oops >&2; exit 7'])"
    result = await api.run(source)
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("child\n", "oops\n", 0)


async def test_a_program_that_ignores_every_signal_can_be_killed(api: Api, server: Server) -> None:
    execution_id = await api.accepted(IGNORES_SIGTERM)
    await api.until_printed(execution_id, b"deaf")
    answer = await api.kill(execution_id)
    assert (answer.status, answer.document) == (200, {"status": "killed"})
    assert (await api.ended(execution_id))["stdout"] == "deaf\n"
    await until_containers(deployment_of(server.data_dir), WARM)


@pytest.mark.parametrize("source", [IGNORES_SIGTERM, "print('deaf', flush=True)\nwhile True: pass"])
async def test_an_endless_program_times_out(api: Api, server: Server, source: str) -> None:
    result = await api.run(source, config={"timeout_seconds": 1})
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "timeout", 124)
    assert "1 s" in result["error"]
    assert result["stdout"] == "deaf\n"
    await until_containers(deployment_of(server.data_dir), WARM)


@sampled(
    "number",
    [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGSEGV],
    every=2,
)
async def test_signals_do_not_end_the_supervisor(api: Api, number: signal.Signals) -> None:
    source = (
        f"import os; os.kill(os.getppid(), {number:d}); os.kill(1, {number:d}); print('parent', os.getppid())"
    )
    result = await api.run(source)
    assert (result["status"], result["exit_code"], result["stdout"]) == ("completed", 0, "parent 1\n")


async def test_killing_all_processes_ends_only_the_program(api: Api) -> None:
    result = await api.run("import os; print('bye', flush=True); os.kill(-1, 9)\nprint('spared', flush=True)")
    assert result["status"] == "completed"
    assert result["stdout"].startswith("bye\n")


@sampled("path", ["/proc/1/fd/1", "/proc/1/fd/0", "/proc/1/mem", "/proc/1/environ"], every=2)
async def test_the_supervisor_cannot_be_reached(api: Api, path: str) -> None:
    source = f"""
import os
for mode in (os.O_WRONLY, os.O_RDONLY):
    try:
        os.write(os.open({path!r}, mode), b'X\\0\\0\\0\\x02{{}}\\n' * 100)
        print('reached')
    except OSError:
        print('refused')
"""
    result = await api.run(source)
    assert (result["status"], result["exit_code"], result["stdout"]) == ("completed", 0, "refused\nrefused\n")


async def test_no_descriptor_of_the_supervisor_is_inherited(api: Api) -> None:
    result = await api.run("import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:3])")
    assert result["stdout"] == "[0, 1, 2]\n"
    result = await api.run(
        "import os\nfor n in range(3, 64):\n try: os.fstat(n); print(n)\n except OSError: pass"
    )
    assert result["stdout"] == ""


@sampled("stdin", ["", "whole", "line\n", "a\0b\nno newline", "\n\n", "ü€𝄞", "x" * 200_000])
async def test_stdin_reaches_the_program_unchanged(api: Api, stdin: str) -> None:
    source = "import sys; data = sys.stdin.buffer.read(); print(len(data)); sys.stdout.buffer.write(data)"
    result = await api.run(source, stdin=stdin)
    assert result["stdout"] == f"{len(stdin.encode())}\n{stdin}"


async def test_unread_stdin_is_ignored(api: Api) -> None:
    assert (await api.run("print('busy')", stdin="x" * 500_000))["stdout"] == "busy\n"


async def test_a_program_may_exec_another_program(api: Api) -> None:
    result = await api.run("import os; os.execv('/bin/echo', ['echo', 'other'])")
    assert (result["status"], result["stdout"]) == ("completed", "other\n")


async def test_a_frame_on_stdout_is_only_output(api: Api) -> None:
    forged = 'X\\0\\0\\0\\x10{"reason":"exit"}\\n'
    result = await api.run(f"import sys; sys.stdout.write('{forged}'); sys.exit(9)")
    assert (result["exit_code"], result["stdout"].startswith("X\0")) == (9, True)


async def test_a_fork_bomb_ends_with_process_limit(api: Api, server: Server) -> None:
    source = "import os\nprint('boom', flush=True)\nwhile True:\n try: os.fork()\n except OSError: pass"
    result = await api.run(source, config={"timeout_seconds": 20})
    assert (result["status"], result["error_type"]) == ("failed", "process_limit")
    await until_containers(deployment_of(server.data_dir), WARM)
