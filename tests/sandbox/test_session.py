"""Test the sandbox of an interpreter session with a real engine."""

import contextlib

import anyio
import pytest

from pyexec.errors import ExecutorError, SandboxRefused
from pyexec.sandbox.session_protocol import CellStart
from pyexec.sandbox.session_sandbox import SessionSandbox
from tests.support.cases import sampled
from tests.support.session_sandboxes import (
    Client,
    SharedSession,
    connected_engine,
    open_session,
    serving,
)

OK = ("exit", 0, False)


async def test_variables_stay_and_the_last_expression_is_the_result(session: Client) -> None:
    assert (await session.run("a = 20")).summary == OK
    found = await session.run("print('x')\na + 1")
    assert (found.stdout, found.stderr, found.result, found.summary) == ("x\n", "", "21", OK)
    assert (await session.run("a;")).result is None
    assert (await session.run("import os; os.environ['GREETING']")).result == "'hello'"


async def test_cells_have_magics_commands_and_await(session: Client) -> None:
    assert (await session.run("!echo $((1 + 1))")).stdout == "2\n"
    assert (await session.run("import asyncio\nawait asyncio.sleep(0.01, 'slept')")).result == "'slept'"
    assert (await session.run("%cd /tmp\n%pwd")).result == "'/tmp'"
    shown = await session.run("display({'a': 1})")
    assert [b"text/plain" in each for each in shown.displays] == [True]


async def test_an_exception_is_reported_and_printed_as_plain_text(session: Client) -> None:
    found = await session.run("def f():\n    raise ValueError('bad')\n\nf()")
    assert found.summary == ("exit", 1, False)
    assert found.crash is not None
    assert (found.crash.error_type, found.crash.error, found.crash.error_line) == ("ValueError", "bad", 2)
    assert "ValueError: bad" in found.stderr
    assert "\x1b" not in found.stderr
    broken = await session.run("a b")
    assert broken.crash is not None
    assert broken.crash.error_type == "SyntaxError"
    asked = await session.run("input('name?')")
    assert asked.crash is not None
    assert "not available in a session" in asked.crash.error


async def test_a_cell_begins_with_the_standard_streams(session: Client) -> None:
    """An event loop makes a pipe non-blocking, and closes it at its end."""
    code = "import os, sys\nfor fd in (0, 1, 2): os.set_blocking(fd, False)\nsys.stdin.close()\nos.close(1)"
    assert (await session.run(code)).summary == OK
    found = await session.run(
        "import subprocess\nprint('x' * 200_000)\nsys.stdin.read(), subprocess.call('cat')"
    )
    assert (len(found.stdout), found.stderr, found.result) == (200_001, "", "('', 0)")


async def test_an_exception_whose_text_fails_is_reported_with_its_own_type(session: Client) -> None:
    found = await session.run("class E(Exception):\n    def __str__(self):\n        1 / 0\n\nraise E")
    assert found.crash is not None
    assert (found.crash.error_type, found.crash.error) == ("E", "<exception str() failed>")
    assert found.crash.error_line == 5
    assert "raise E" in found.stderr
    assert found.stderr.count("Traceback") == 1
    assert found.summary == ("exit", 1, False)


HOSTILE = {
    "close stdout": ("import sys; sys.stdout.close()", OK),
    "close descriptors": ("import os; os.close(1); os.close(2)", OK),
    "print after closing": ("import os; os.close(1); os.close(2)\nprint('own')", ("exit", 1, False)),
    "replace stdout": ("import sys; sys.stdout = sys.stderr = None", OK),
    "replace the hook": ("import sys; sys.displayhook = None; get_ipython = None", OK),
    "exit": ("import sys; sys.exit(3)", ("exit", 3, False)),
    "quit": ("print('bye')\nexit()", ("exit", 0, True)),
    "_exit": ("import os; os._exit(4)", ("exit", 4, True)),
    "kill itself": ("import os; os.kill(os.getpid(), 9)", ("exit", 137, True)),
    "block signals": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(60)",
        ("timeout", 137, True),
    ),
    "sleep": ("import time; time.sleep(60)", ("timeout", 1, False)),
    "catch interrupts": (
        "import time\nwhile True:\n  try: time.sleep(60)\n  except KeyboardInterrupt: pass",
        ("timeout", 137, True),
    ),
    "fill memory": ("x = bytearray(2**29)", ("out_of_memory", 137, True)),
    "fill the disk": ("open('/work/f', 'wb').write(bytes(2**27))", ("exit", 1, False)),
    "print without end": ("while True: print('y' * 1000)", ("output_limit", 1, False)),
    "close the channel": ("import os; os.close(6)", ("exit", 1, True)),
    "flood the channel": (
        "import socket, threading\ns = socket.socket(fileno=6)\nwhile True: s.send(b'x' * 1000)",
        ("timeout", 1, False),
    ),
    "write to our descriptors": (
        "import os\nfor fd in range(1, 20):\n  try: os.open(f'/proc/1/fd/{fd}', os.O_WRONLY)\n  except OSError: pass",
        OK,
    ),
}


@sampled("name", HOSTILE, every=3)
async def test_a_hostile_cell_ends_and_the_next_one_works(session: Client, name: str) -> None:
    code, expected = HOSTILE[name]
    with anyio.fail_after(20):
        found = await session.run(code, seconds=1.0 if expected[0] == "timeout" else 10.0)
        assert found.summary == expected, found
        after = await session.run(
            "import os, sys\nfor f in os.listdir('/work'): os.remove('/work/' + f)\nprint('on')\n6 * 7"
        )
    assert (after.stdout, after.result, after.summary) == ("on\n", "42", OK)


FILL_TMP = """
import os
os.chdir('/tmp')
for _ in range(200):
    os.mkdir('d')
    os.chdir('d')
file = open('f', 'wb')
os.chdir('/tmp')
os.chmod('/tmp', 0)
for _ in range(24): file.write(bytes(2**20))
file.flush()
import time; time.sleep(30)
"""


async def test_files_that_are_hard_to_remove_do_not_raise_the_limit(session: Client) -> None:
    """They are nested deeply in a directory that cannot be read."""
    fill = "open('/work/f', 'wb').write(bytes(24 * 2**20))"
    assert (await session.run(fill)).summary == OK
    try:
        for _ in range(2):
            assert (await session.run(FILL_TMP)).summary == ("disk_limit", 137, True)
            found = await session.run("import glob, os; oct(os.stat('/tmp').st_mode), glob.glob('/tmp/*')")
            assert found.result == "('0o41777', [])"
    finally:
        await session.run("os.remove('/work/f')")


async def test_the_memory_limit_holds_between_cells_after_a_restart(session: Client) -> None:
    assert (await session.run("import os; os._exit(0)")).summary == ("exit", 0, True)
    fill = "import os, time\nif not os.fork():\n  time.sleep(0.2)\n  x = bytearray(208 * 2**20)\n  time.sleep(60)"
    assert (await session.run(fill)).summary == OK
    await anyio.sleep(3)
    found = await session.run("len([name for name in os.listdir('/proc') if name.isdigit()])")
    assert "NameError" in found.stderr, "the interpreter was not replaced"
    found = await session.run("import os; len([name for name in os.listdir('/proc') if name.isdigit()])")
    assert found.result == "2"


async def test_a_limit_that_was_exceeded_between_cells_does_not_end_the_next_one(session: Client) -> None:
    """Soon after a restart, the supervisor only kills the processes; the files in /tmp must go nevertheless."""
    assert (await session.run("import os; os._exit(0)")).summary == ("exit", 0, True)
    fill = (
        "import os, time\nif not os.fork():\n  time.sleep(0.2)\n  for folder in ('/work', '/tmp'):\n"
        "    open(folder + '/full', 'wb').write(bytes(24 * 2**20))\n  time.sleep(60)"
    )
    assert (await session.run(fill)).summary == OK
    await anyio.sleep(2.5)
    found = await session.run("import os\nos.remove('/work/full')\nos.path.exists('/tmp/full')")
    assert (found.summary, found.result) == (OK, "False")


SHARED_MEMORY = """
import ctypes
libc, size = ctypes.CDLL(None), 208 * 2**20
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, ctypes.c_size_t(size), 0o1600)
libc.semget(0, 1, 0o1600)
ctypes.memset(libc.shmat(segment, None, 0), 1, size)
"""
QUEUES = """
import ctypes
libc = ctypes.CDLL(None)
message = ctypes.create_string_buffer(b'1' * 8008)
while (queue := libc.msgget(0, 0o1600)) >= 0:
    while libc.msgsnd(queue, message, 8000, 0o4000) == 0:
        pass
"""


@pytest.mark.parametrize("fill", [SHARED_MEMORY, QUEUES], ids=["shared memory", "queues"])
async def test_system_v_objects_do_not_outlive_the_memory_limit(session: Client, fill: str) -> None:
    assert (await session.run(fill)).summary == ("out_of_memory", 137, True)
    count = "import os; sum(len(list(open('/proc/sysvipc/' + kind))) for kind in ('shm', 'msg', 'sem'))"
    assert (await session.run(count)).result == "3"


MAP_FILES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
open('/tmp/f', 'wb').write(bytes(4096))
os.fork()
for _ in range(42_000):
    file = os.open('/tmp/f', os.O_RDONLY)
    libc.mmap(None, 4096, 1, 2, file, 0)
    os.close(file)
time.sleep(10)
"""


async def test_files_that_a_cell_has_mapped_do_not_count_for_the_next_one(session: Client) -> None:
    assert (await session.run(MAP_FILES)).summary == ("out_of_memory", 137, True)
    assert (await session.run("6 * 7")).summary == OK


async def test_missing_builtins_come_back(session: Client) -> None:
    await session.run("import builtins\nfor name in list(vars(builtins)): delattr(builtins, name)")
    assert (await session.run("len([1, 2])")).result == "2"


async def test_output_after_the_end_belongs_to_the_next_cell(session: Client) -> None:
    code = (
        "import os, threading, time\nthreading.Timer(0.3, print, ['late']).start()\n"
        "if not os.fork():\n    time.sleep(0.3)\n    print('child')"
    )
    assert (await session.run(code)).stdout == ""
    found = await session.run("time.sleep(0.5)")
    assert sorted(found.stdout.split()) == ["child", "late"]


async def test_an_interrupt_keeps_the_variables(session: Client) -> None:
    assert not await session.sandbox.interrupt()
    await session.run("kept = 1")
    async with anyio.create_task_group() as tasks:

        async def interrupt() -> None:
            while not await session.sandbox.interrupt():
                await anyio.lowlevel.checkpoint()
            await session.sandbox.interrupt()

        tasks.start_soon(interrupt)
        found = await session.run("import time; time.sleep(60)")
    assert found.summary == ("exit", 1, False)
    assert found.crash is not None
    assert found.crash.error_type == "KeyboardInterrupt"
    assert (await session.run("kept")).result == "1"


async def test_an_import_can_be_interrupted_and_repeated(session: Client) -> None:
    await session.run("open('/work/slow.py', 'w').write('import decimal, time; time.sleep(60)')")
    for _ in range(2):
        found = await session.run("import slow", seconds=0.5)
        assert found.summary == ("timeout", 1, False)
    await session.run("!rm -r /work/slow.py /work/__pycache__")


async def test_another_replica_reads_a_running_cell_from_its_first_byte(shared: SharedSession) -> None:
    async with connected_engine() as engine:
        first = shared.adopted(engine)
        code = "import time\nprint('first', flush=True)\ntime.sleep(1)\nprint('second')\n'value'"
        cell = CellStart(nonce="adopted", code=code, timeout=30, output_bytes=1000, display_bytes=1000)
        async with serving(first):
            async for _ in first.run_cell(cell):
                break
            second = shared.adopted(engine)
            async with serving(second) as client:
                assert second.synced is not None
                assert (second.synced.cell_nonce, second.synced.ended) == ("adopted", False)
                found = await client.run("", resume="adopted")
                with anyio.fail_after(5):
                    await first.ended.wait()
    assert (found.stdout, found.result, found.summary) == ("first\nsecond\n", "'value'", OK)
    assert first.end_reason == "fenced"


async def test_a_restart_loses_the_variables_and_keeps_the_files(session: Client) -> None:
    await session.run("lost = 1\nopen('/work/kept', 'w').close()")
    send, restarts = anyio.create_memory_object_stream[str](1)
    session.sandbox.on_restart = send.send_nowait
    with send, restarts, anyio.fail_after(10):
        await session.sandbox.restart()
        assert await restarts.receive() == "requested"
    assert (
        await session.run("'lost' in globals(), __import__('os').listdir('/work')")
    ).result == "(False, ['kept'])"
    await session.run("!rm /work/kept")


async def test_an_image_without_ipython_is_refused_and_a_closed_session_is_gone(
    image: str, session_image: str
) -> None:
    async with connected_engine() as engine:
        with pytest.raises(SandboxRefused, match="needs IPython") as caught:
            await open_session(engine, image)
        assert caught.value.code == "no_interpreter"
        sandbox = await open_session(engine, session_image, "PYTHONHASHSEED=0", "TZ=Asia/Tokyo")
        async with serving(sandbox) as client:
            found = await client.run("import time, sys; time.tzname[0], sys.flags.hash_randomization")
            assert found.result == "('JST', 0)"
            await sandbox.remove()
            with anyio.fail_after(10):
                await sandbox.ended.wait()
            assert sandbox.end_reason == "lost"
        gone = SessionSandbox.adopt(engine, sandbox.container_id, 9)
        with anyio.fail_after(10):
            await gone.serve()
        assert (gone.end_reason, gone.synced, gone.ready.is_set()) == ("lost", None, True)


async def test_a_session_without_a_lease_ends_whatever_its_cell_does(session_image: str) -> None:
    code = (
        "import os, signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True:\n"
        "    for number in (14, 19): os.kill(1, number)\n    time.sleep(0.01)"
    )
    async with connected_engine() as engine:
        sandbox = await open_session(engine, session_image, lease_seconds=2.0)
        async with serving(sandbox) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(_run_to_the_end, client, code, name="cell")
            with anyio.fail_after(20):
                await sandbox.ended.wait()
            tasks.cancel_scope.cancel()
        assert sandbox.end_reason == "lost"
        await sandbox.remove()


async def _run_to_the_end(client: Client, code: str) -> None:
    with contextlib.suppress(ExecutorError):
        await client.run(code)


async def test_warnings_that_are_errors_concern_only_the_cells(session_image: str) -> None:
    async with connected_engine() as engine:
        sandbox = await open_session(engine, session_image, "PYTHONWARNINGS=error")
        async with serving(sandbox) as client:
            assert (await client.run("1 + 1")).result == "2"
            found = await client.run("import warnings; warnings.warn('strict')")
            assert found.crash is not None
            assert (found.crash.error_type, found.crash.error) == ("UserWarning", "strict")
            assert (await client.run("raise SystemExit")).summary == OK
        await sandbox.remove()


@sampled("variable", ["PYTHONHASHSEED=bad", "PYTHONHOME=/nowhere", "PYTHONMALLOC=bad"], every=2)
async def test_variables_that_keep_the_interpreter_from_starting_are_named(
    session_image: str, variable: str
) -> None:
    async with connected_engine() as engine:
        for _ in range(3):  # it ends before or after the supervisor writes to it
            with pytest.raises(
                SandboxRefused, match=r"without these env_vars, but not with them: .*"
            ) as caught:
                await open_session(engine, session_image, variable)
            assert caught.value.code == "bad_variables"
