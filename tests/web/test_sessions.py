"""Test interpreter sessions over HTTP, on a real server with real sandboxes."""

import anyio
import pytest

from tests.support.api import Api, form, parse_events, pause
from tests.support.archives import END, tar_of
from tests.support.metrics import figures, until_figures
from tests.support.server import Server
from tests.support.sessions import Session, opened


async def test_variables_stay_and_the_last_expression_is_the_result(session: Session) -> None:
    assert session.document["status"] == "open"
    assert session.document["cells"] == {"waiting": 0}
    first = await session.result("import math\nx = 6 * 7\nprint('told')")
    assert (first["status"], first["exit_code"], first["stdout"]) == ("completed", 0, "told\n")
    assert (first["session_id"], "result" in first) == (session.document["id"], False)
    for code in ("y = 1", "None", "%cd /work", "!true", "1 + 1;"):
        assert "result" not in await session.result(code), code
    second = await session.result("x + math.floor(0.5)")
    assert (second["result"], second["stdout"]) == ("42", "")
    assert (await session.result("import asyncio\nawait asyncio.sleep(0, 'awaited')"))[
        "result"
    ] == "'awaited'"
    assert (await session.result("!echo from a shell"))["stdout"] == "from a shell\n"
    again = await session.api.get(f"/api/v1/executions/{second['execution_id']}")
    assert again.document["result"] == "42"


async def test_errors_of_the_code_are_results_and_keep_the_session(shared: Session) -> None:
    await shared.result("kept = 1")
    wrong = await shared.result("x = = 1")
    assert (wrong["status"], wrong["exit_code"], wrong["error_type"]) == ("completed", 1, "SyntaxError")
    raised = await shared.result("def f():\n    1 / 0\nf()")
    assert (raised["error_type"], raised["error"]) == ("ZeroDivisionError", "division by zero")
    assert raised["traceback"][-1]["type"] == "ZeroDivisionError"
    nul = await shared.result("x = 1\0")
    assert (nul["status"], nul["exit_code"]) == ("completed", 1)
    assert nul["error_type"] == nul["traceback"][-1]["type"] in ("ValueError", "SyntaxError")
    assert (await shared.result("kept"))["result"] == "1"


async def test_an_exit_after_a_printed_traceback_is_no_exception(shared: Session) -> None:
    result = await shared.result(
        "import sys, traceback\ntry: 1 / 0\nexcept Exception: traceback.print_exc()\nsys.exit(1)"
    )
    assert (result["exit_code"], "ZeroDivisionError" in result["stderr"]) == (1, True)
    assert {"error_type", "error"}.isdisjoint(result)


async def test_code_that_is_nested_too_deeply_shows_no_frames_of_the_shell(shared: Session) -> None:
    result = await shared.result("-" * 5000 + "1")
    assert result["error_type"] == "RecursionError"
    assert "File" not in result["stderr"]
    assert result["stderr"].startswith("RecursionError: maximum recursion depth exceeded")


async def test_a_byte_order_mark_is_no_part_of_the_code(shared: Session) -> None:
    assert (await shared.result("\ufeff6 * 7"))["result"] == "42"


async def test_input_shows_only_the_frames_of_the_caller(shared: Session) -> None:
    result = await shared.result("def f():\n    input('name? ')\nf()")
    assert (result["error_type"], result["error_line"]) == ("EOFError", 2)
    assert result["error"] == "input() is not available in a session: a cell has no standard input"
    for text in (result["stderr"], str(result["traceback"])):
        assert "pyexec.guest" not in text
    assert "Could not get source" not in result["stderr"]


@pytest.mark.parametrize(
    ("code", "error_type", "line"),
    [
        ("class Bad:\n    def __repr__(self): return 1 / 0\nBad()", "ZeroDivisionError", 2),
        ("class Bad:\n    def __repr__(self): return 5\nBad()", "TypeError", 3),
        ("def f():\n    breakpoint()\nf()", "BdbQuit", 2),
        ("1\nbreakpoint()", "BdbQuit", 2),
        (
            "try:\n    1 / 0\nfinally:\n    raise ExceptionGroup('g', [KeyError()])",
            "ExceptionGroup",
            4,
        ),
    ],
)
async def test_a_traceback_shows_no_frames_of_the_session_itself(
    shared: Session, code: str, error_type: str, line: int
) -> None:
    result = await shared.result(code)
    assert (result["error_type"], result["error_line"]) == (error_type, line)
    for text in (result["stderr"], str(result["traceback"])):
        assert "pyexec.guest" not in text
        assert "interactiveshell" not in text
    assert "Could not get source" not in result["stderr"]


@pytest.mark.parametrize("code", ["%pip install x", "!pip install x"])
async def test_pip_in_an_image_without_it_says_where_packages_are_installed(
    shared: Session, code: str
) -> None:
    result = await shared.result(code)
    assert (result["exit_code"], result["error_type"]) == (1, "UsageError")
    assert "Open a session with these requirements (requirements_txt)" in result["error"]
    assert "pyexec.guest" not in str(result["traceback"])


async def test_a_closed_session_is_a_410_and_can_be_read(api: Api, session_image: str) -> None:
    async with opened(api, docker_image=session_image) as session:
        closed = await api.request("DELETE", session.path)
    assert (closed.status, closed.document["status"]) == (200, "closed")
    assert closed.document["close_reason"] == "deleted"
    assert (await session.get())["status"] == "closed"
    assert (await api.request("DELETE", session.path)).document["close_reason"] == "deleted"
    answer = await session.eval("1")
    assert (answer.status, answer.document["code"]) == (410, "session_closed")
    assert (await session.put("a", b"1")).status == 410
    assert (await session.read("a"))[0] == 410
    listed = (await api.get("/api/v1/sessions")).document["sessions"]
    assert session.document["id"] in [each["id"] for each in listed]


async def test_a_session_begins_with_files(api: Api, session_image: str) -> None:
    archive = tar_of({"data/a.txt": "content", "helper.py": "WORD = 'imported'"})
    metadata = {"docker_image": session_image, "env_vars": ["MODE=test"]}
    for cut_short in (archive[: -len(END)], b""):
        answer = await api.request("POST", "/api/v1/sessions", data=form(cut_short, metadata))
        assert (answer.status, answer.document["field"]) == (400, "tar"), answer.document
    answer = await api.request("POST", "/api/v1/sessions", data=form(archive, metadata))
    assert answer.status == 201, answer.document
    session = Session(api, answer.document)
    code = "import helper, os\nopen('data/a.txt').read(), helper.WORD, os.environ['MODE']"
    assert (await session.result(code))["result"] == "('content', 'imported', 'test')"
    await api.request("DELETE", session.path)


async def test_cells_of_two_clients_run_in_the_order_of_acceptance(shared: Session) -> None:
    first = await shared.submitted("import time\nseen = []\ntime.sleep(0.5)\nseen.append(0)")
    rest = [await shared.submitted(f"seen.append({number})") for number in range(1, 6)]
    async with anyio.create_task_group() as tasks:
        for execution_id in (first, *rest):
            tasks.start_soon(shared.api.ended, execution_id, name=execution_id)
    assert (await shared.result("seen"))["result"] == "[0, 1, 2, 3, 4, 5]"


async def test_an_interrupt_keeps_the_variables(shared: Session) -> None:
    assert await shared.post("interrupt") == {"interrupted": False}
    running = await shared.submitted("import time\nx = 1\nprint('on', flush=True)\ntime.sleep(60)")
    await shared.api.until_printed(running, b"on")
    assert (await shared.get())["cells"] == {"waiting": 0, "running": running}
    assert await shared.post("interrupt") == {"interrupted": True}
    await shared.post("interrupt")  # a second one does no harm, whether the cell has ended or not
    result = await shared.api.ended(running)
    assert (result["status"], result["error_type"]) == ("completed", "KeyboardInterrupt")
    assert "interpreter_restarted" not in result
    assert (await shared.result("x"))["result"] == "1"


async def test_a_restart_loses_the_variables_and_keeps_the_files(session: Session) -> None:
    await session.result("x = 1\nopen('kept.txt', 'w').write('kept')")
    assert (await session.post("restart"))["interpreter_restarts"] == 1
    assert (await session.result("x"))["error_type"] == "NameError"
    assert (await session.result("open('kept.txt').read()"))["result"] == "'kept'"
    running = await session.submitted("import time\nprint('on', flush=True)\ntime.sleep(60)")
    await session.api.until_printed(running, b"on")
    assert (await session.post("restart"))["interpreter_restarts"] == 2
    ended = await session.api.ended(running)
    assert (ended["status"], ended["interpreter_restarted"]) == ("killed", True)


async def test_exit_ends_the_interpreter_and_sys_exit_the_cell(session: Session) -> None:
    assert "interpreter_restarted" not in await session.result("import sys\nx = 1\nsys.exit(3)")
    for number, code in ((300, 44), (-1, 255), (2**64, 255)):
        assert (await session.result(f"sys.exit({number})"))["exit_code"] == code
    left = await session.result("print(x)\nexit()")
    assert (left["status"], left["stdout"], left["exit_code"]) == ("completed", "1\n", 0)
    assert left["interpreter_restarted"] is True
    for code in ("exit(3)", "quit(3)"):
        left = await session.result(code)
        assert (left["status"], left["exit_code"], left["interpreter_restarted"]) == ("completed", 3, True)
    killed = await session.result("import os\nos.kill(os.getpid(), 9)")
    assert (killed["status"], killed["exit_code"], killed["interpreter_restarted"]) == (
        "completed",
        137,
        True,
    )
    assert (await session.result("x"))["error_type"] == "NameError"
    assert (await session.get())["interpreter_restarts"] == 4


async def test_a_cell_that_ignores_its_timeout_restarts_the_interpreter(shared: Session) -> None:
    await shared.result("x = 1")
    polite = await shared.result("import time\ntime.sleep(60)", timeout_seconds=0.5)
    assert (polite["status"], polite["error_type"]) == ("failed", "timeout")
    assert (await shared.result("x"))["result"] == "1"
    code = "while True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass"
    stubborn = await shared.result(code, timeout_seconds=0.5)
    assert (stubborn["error_type"], stubborn["interpreter_restarted"]) == ("timeout", True)
    assert (await shared.result("x"))["error_type"] == "NameError"


async def test_the_cell_after_a_fork_bomb_runs(session: Session) -> None:
    code = (
        "import _thread, time\nwhile True:\n    try:\n        _thread.start_new_thread(time.sleep, (60,))\n"
        "    except RuntimeError:\n        pass"
    )
    assert (await session.result(code))["error_type"] == "process_limit"
    assert (await session.result("6 * 7"))["result"] == "42"


async def test_waiting_and_running_cells_can_be_killed(shared: Session) -> None:
    running = await shared.submitted("import time\nx = 1\nprint('on', flush=True)\ntime.sleep(60)")
    waiting = await shared.submitted("y = 1")
    await shared.api.until_printed(running, b"on")
    assert (await shared.api.kill(waiting)).document == {"status": "killed"}
    assert (await shared.api.kill(running)).document == {"status": "killed"}
    assert (await shared.result("x, 'y' in globals()"))["result"] == "(1, False)"


async def test_the_close_of_a_session_ends_its_cells(api: Api, session_image: str) -> None:
    async with opened(api, docker_image=session_image) as session:
        running = await session.submitted("import time\ntime.sleep(60)")
        waiting = await session.submitted("1")
        await session.until_started(running)
    for execution_id in (running, waiting):
        ended = await api.ended(execution_id)
        assert (ended["status"], ended["error_type"]) == ("failed", "session_closed")


async def test_a_client_that_disconnects_ends_its_cell(shared: Session) -> None:
    with anyio.move_on_after(1):
        await shared.eval("import time\nbegun = 1\ntime.sleep(60)")
    assert (await shared.result("begun"))["result"] == "1"


async def test_the_same_key_returns_the_same_execution(shared: Session) -> None:
    await shared.result("x = 0")
    header = {"Idempotency-Key": f"key of {shared.document['id']}"}
    ids = {(await shared.result("x += 1", headers=header))["execution_id"] for _ in range(2)}
    assert len(ids) == 1
    assert (await shared.result("x"))["result"] == "1"
    other = await shared.eval("x += 2", headers=header)
    assert (other.status, other.document["code"]) == (409, "idempotency_key_reused")


async def test_events_are_streamed(shared: Session) -> None:
    headers = {"Accept": "text/event-stream"}
    body = {"code": "print('now')\n42"}
    async with shared.api.session.post(f"{shared.path}/eval", json=body, headers=headers) as response:
        assert response.content_type == "text/event-stream"
        events = [event async for event in parse_events(response)]
    names = [event.name for event in events]
    assert (names[0], names[-1]) == ("submitted", "finished")
    assert b"".join(event.output for event in events if event.name == "output") == b"now\n"
    assert events[-1].data["result"] == "42"


async def test_an_idle_session_is_closed(api: Api, session_image: str) -> None:
    async with opened(api, docker_image=session_image, idle_timeout_seconds=1) as session:
        await session.until_closed()
        assert (await session.get())["close_reason"] == "idle"


async def test_a_session_is_closed_at_the_end_of_its_lifetime(api: Api, session_image: str) -> None:
    async with opened(api, docker_image=session_image, lifetime_seconds=1) as session:
        await session.until_closed()
        assert (await session.get())["close_reason"] == "lifetime"


async def test_sessions_are_counted_in_metrics_and_in_the_cluster(
    server: Server, api: Api, session_image: str, shared: Session
) -> None:
    before = await figures(server.url)
    count = 2  # this one, and the session of the file
    async with opened(api, docker_image=session_image) as session:
        now = await until_figures(server.url, lambda found: found("pyexec_sessions_open") == count)
        assert now("pyexec_sessions_opened_total") == before("pyexec_sessions_opened_total") + 1
        assert now("pyexec_session_limit") == 16
        await session.post("restart")
        restarts = before("pyexec_interpreter_restarts_total") + 1
        await until_figures(server.url, lambda found: found("pyexec_interpreter_restarts_total") == restarts)
        with anyio.fail_after(10):  # the server keeps an answer for two seconds
            while await open_sessions(api) != count:
                await pause()
        before_close = await figures(server.url)
    after = await figures(server.url)
    change = after.since(before_close, "pyexec_sessions_closed_total")
    assert change == {("pyexec_sessions_closed_total", frozenset({("reason", "deleted")})): 1}


async def open_sessions(api: Api) -> int:
    [replica] = (await api.get("/api/v1/cluster")).document["replicas"]
    return int(replica["sessions"]["open"])


async def test_a_client_waits_for_a_change_of_the_list(session: Session) -> None:
    path, http = "/api/v1/sessions", session.api.session
    async with http.get(path) as listed:
        tag = listed.headers["ETag"]
    async with http.get(path, params={"wait": "0.1"}, headers={"If-None-Match": tag}) as unchanged:
        assert (unchanged.status, unchanged.headers["ETag"]) == (304, tag)
    await session.post("restart")
    async with http.get(path, params={"wait": "60"}, headers={"If-None-Match": tag}) as changed:
        (own,) = [each for each in (await changed.json())["sessions"] if each["id"] == session.document["id"]]
        assert own["interpreter_restarts"] == 1
