"""Test every outcome of a run that docs/api.md describes."""

import secrets
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.api import Api
from tests.support.archives import script, tar_of

EMPTY_IMAGE = f"pyexec-test-empty:{secrets.token_hex(4)}"


@pytest.mark.parametrize(
    ("source", "error_type", "error", "line"),
    [
        ("x = 1\n\nraise ValueError('too blue')", "ValueError", "too blue", 3),
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError", "division by zero", 2),
        ("import json\njson.loads('{')", "JSONDecodeError", "Expecting property name", 2),
        ("print('a'\n", "SyntaxError", "never closed", 1),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('k')", "KeyError", "'k'", 4),
        ("class Own(Exception): ...\nraise Own", "Own", "Own", 2),
        ("raise ValueError('two\\nlines')", "ValueError", "two\nlines", 1),
        ("import helper\nhelper.go()", "RuntimeError", "deep", 2),
        (
            "class A:\n    def __del__(self):\n        raise KeyError('late')\na = A()\nraise ValueError('main')",
            "ValueError",
            "main",
            5,
        ),
        ("raise ValueError('x' * 200000)", "ValueError", "xxx", 1),
        (
            "import subprocess, sys\nchild = subprocess.run([sys.executable, '-c', '{}[1]'], stderr=-1, text=True)\n"
            "raise ValueError(child.stderr)",
            "ValueError",
            "KeyError: 1",
            3,
        ),
        (
            "import threading\nthreading.Timer(0.2, lambda: {}[1]).start()\nraise ValueError('main')",
            "ValueError",
            "main",
            3,
        ),
    ],
)
async def test_a_traceback_gives_the_error_type_message_and_line(
    api: Api, source: str, error_type: str, error: str, line: int
) -> None:
    archive = tar_of({"main.py": source, "helper.py": "def go():\n    raise RuntimeError('deep')"})
    result = (await api.sync(archive)).document
    assert (result["status"], result["exit_code"], result["error_type"]) == ("completed", 1, error_type)
    assert error in result["error"]
    assert result["error_line"] == line


@pytest.mark.parametrize("code", [0, 1])
async def test_an_exception_in_a_thread_is_not_reported_as_the_error(api: Api, code: int) -> None:
    source = "import sys, threading\nt = threading.Thread(target=lambda: {}[1])\nt.start()\nt.join()\n"
    result = await api.run(source + f"sys.exit({code})")
    assert (result["exit_code"], "KeyError: 1" in result["stderr"]) == (code, True)
    assert {"error_type", "error", "error_line"}.isdisjoint(result)


async def test_a_traceback_printed_by_a_successful_run_is_no_error(api: Api) -> None:
    result = await api.run("import traceback\ntry: 1/0\nexcept ZeroDivisionError: traceback.print_exc()")
    assert result["exit_code"] == 0
    assert "error_type" not in result


HUNGRY = """
import time
print('before', flush=True)
x = bytearray(200 * 1024 * 1024)
for i in range(0, len(x), 4096):
    x[i] = 1
time.sleep(60)
"""
WRITES = """
with open('big', 'wb') as file:
    for _ in range(100):
        file.write(bytes(1024 * 1024))
    print(file.tell() >> 20)
"""


async def test_a_program_over_its_memory_limit_is_out_of_memory(api: Api) -> None:
    result = await api.run(HUNGRY, config={"memory_mb": 64})
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "out_of_memory", 137)
    assert ("64 MiB" in result["error"], result["stdout"]) == (True, "before\n")


async def test_files_do_not_count_as_memory(api: Api) -> None:
    result = await api.run(WRITES, config={"memory_mb": 64, "disk_mb": 200})
    assert (result["status"], result["stdout"]) == ("completed", "100\n")


async def test_a_full_disk_is_the_programs_own_error(api: Api) -> None:
    result = await api.run("open('big', 'wb').write(bytes(20 * 1024 * 1024))", config={"disk_mb": 8})
    assert (result["status"], result["exit_code"], result["error_type"]) == ("completed", 1, "OSError")
    assert "No space left" in result["error"]


async def test_a_timeout_keeps_the_output(api: Api) -> None:
    result = await api.run("import time; print('kept'); time.sleep(60)", config={"timeout_seconds": 0.5})
    assert (result["status"], result["error_type"], result["exit_code"]) == ("failed", "timeout", 124)
    assert (result["stdout"], "0.5 s" in result["error"]) == ("kept\n", True)


async def test_the_network_is_disabled_unless_requested(api: Api) -> None:
    source = "import socket; print(sorted(name for _, name in socket.if_nameindex()))"
    assert "eth0" not in (await api.run(source))["stdout"]
    assert "eth0" in (await api.run(source, config={"network_disabled": False}))["stdout"]


@pytest.fixture(scope="module")
def empty_image() -> Iterator[str]:
    """Create an image with nothing in it, not even Python."""
    subprocess.run(
        ["docker", "import", "-", EMPTY_IMAGE], input=bytes(10240), check=True, capture_output=True
    )
    yield EMPTY_IMAGE
    subprocess.run(["docker", "rmi", EMPTY_IMAGE], check=True, capture_output=True)


@pytest.mark.parametrize("route", ["sync", "submit"])
async def test_an_image_without_python(api: Api, empty_image: str, route: str) -> None:
    answer = await getattr(api, route)(script("print()"), {"docker_image": empty_image})
    result = await api.ended(answer.document["execution_id"])
    assert (result["status"], result["error_type"]) == ("failed", "image_unavailable")
    assert (empty_image in result["error"], "exit_code" in result) == (True, False)


@pytest.mark.parametrize("route", ["sync", "submit"])
@pytest.mark.parametrize("wanted", ["pyexec-no-such-image:1", "UPPER/x", "localhost:1/none:1"])
async def test_an_unavailable_image_fails_the_run(api: Api, route: str, wanted: str) -> None:
    answer = await getattr(api, route)(script("print()"), {"docker_image": wanted})
    assert answer.status in (200, 202), answer.document
    result = await api.ended(answer.document["execution_id"])
    assert (result["status"], result["error_type"]) == ("failed", "image_unavailable")
    assert wanted in result["error"]


async def test_a_bad_archive_is_reported_before_a_missing_image(api: Api) -> None:
    answer = await api.sync(script("")[:600], {"docker_image": "pyexec-no-such-image:1"})
    assert (answer.status, answer.document["field"]) == (400, "tar")


async def test_more_cpus_than_the_engine_has_are_refused(api: Api) -> None:
    answer = await api.sync(script(""), {"config": {"cpus": 100_000}})
    assert (answer.status, answer.document["field"]) == (400, "config.cpus")
    assert "at most" in answer.document["error"]
