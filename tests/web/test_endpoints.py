"""Test every endpoint with valid requests: the responses have the documented form."""

import re
from collections.abc import Iterator, Sequence

import pytest
from multidict import CIMultiDict

from tests.support.api import Api, api_of, form
from tests.support.archives import script, tar_of
from tests.support.server import Server, running_server

ID = re.compile(r"exe_[0-9a-f]{32}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = f"exe_{0:032x}"
FOREVER = "import time\nprint('on', flush=True)\ntime.sleep(3600)"


async def test_sync_gives_the_whole_result(api: Api) -> None:
    result = await api.run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert ID.fullmatch(result["execution_id"])
    assert (result["status"], result["exit_code"]) == ("completed", 3)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")
    assert all(MOMENT.fullmatch(result[name]) for name in ("created_at", "started_at", "finished_at"))
    assert result["created_at"] <= result["started_at"] <= result["finished_at"]
    assert set(result["timings_ms"]) == {"queue", "setup", "run"}
    assert result["usage"]["cpu_seconds"] > 0
    assert result["usage"]["peak_memory_bytes"] > 1_000_000
    assert result["truncated"] == {"stdout": False, "stderr": False}
    assert None not in result.values()
    assert {"error", "error_type", "error_line", "result"}.isdisjoint(result)


async def test_a_result_stays_the_same_when_asked_for_again(api: Api) -> None:
    result = await api.run("print('kept')")
    assert (await api.get(f"/api/v1/executions/{result['execution_id']}")).document == result


async def test_async_gives_an_id_and_a_location_that_leads_to_the_result(api: Api) -> None:
    answer = await api.submit(script("print('later')"))
    assert answer.status == 202
    assert set(answer.document) == {"execution_id"}
    assert answer.headers["Location"] == f"/api/v1/executions/{answer.document['execution_id']}"
    result = (await api.get(f"{answer.headers['Location']}?wait=60")).document
    assert (result["status"], result["stdout"]) == ("completed", "later\n")


@pytest.mark.parametrize("order", [("metadata", "tar"), ("tar", "metadata")])
@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("route", ["sync", "async"])
async def test_parts_come_in_either_order_and_metadata_as_text_or_file(
    api: Api, order: Sequence[str], as_file: bool, route: str
) -> None:
    archive = tar_of({"main.py": "print('no')", "other.py": "import sys; print(sys.argv[1])"})
    metadata = {"entrypoint": "other.py", "script_args": ["yes"]}
    body = form(archive, metadata, order=order, metadata_as_file=as_file)
    answer = await api.request("POST", f"/api/v1/exec/{route}", data=body)
    assert answer.status in (200, 202), answer.document
    assert (await api.ended(answer.document["execution_id"]))["stdout"] == "yes\n"


async def test_a_tar_alone_is_enough(api: Api) -> None:
    answer = await api.request("POST", "/api/v1/exec/sync", data=form(script("print('alone')")))
    assert (answer.status, answer.document["stdout"]) == (200, "alone\n")


async def test_metadata_reaches_the_program(api: Api) -> None:
    source = "import os, sys; print(sys.argv[1:], os.environ['COLOUR'], sys.stdin.read(), os.getcwd())"
    result = await api.run(source, script_args=["a b", "ü"], env_vars=["COLOUR=blue=green"], stdin="line\n")
    assert result["stdout"] == "['a b', 'ü'] blue=green line\n /work\n"


async def test_eval_runs_code_and_files(api: Api) -> None:
    assert (await api.eval({"code": "print('code')"})).document["stdout"] == "code\n"
    files = [
        {"name": "pkg/helper.py", "content": "WORD = 'files'"},
        {"name": "b.py", "content": "import pkg.helper as h; print(h.WORD)"},
    ]
    assert (await api.eval({"files": files})).document["stdout"] == "files\n"
    answer = await api.eval({"files": files, "entrypoint": "pkg/helper.py"})
    assert (answer.status, answer.document["stdout"]) == (200, "")


async def test_eval_gives_the_last_expression(api: Api) -> None:
    answer = await api.eval({"code": "print('[1]')\nx = 20\n[x, x + 1]", "eval_last_expr": True})
    assert (answer.document["result"], answer.document["stdout"]) == ("[20, 21]", "[1]\n")
    answer = await api.eval({"code": "x = 1", "eval_last_expr": True})
    assert "result" not in answer.document
    assert "result" not in (await api.eval({"code": "41 + 1"})).document


async def test_get_waits_for_the_end_but_not_longer_than_asked(api: Api) -> None:
    execution_id = await api.accepted(FOREVER)
    await api.until_printed(execution_id, b"on")
    answer = await api.get(f"/api/v1/executions/{execution_id}?wait=0.01")
    assert (answer.status, answer.document["status"], answer.document["stdout"]) == (200, "running", "on\n")
    assert {"exit_code", "finished_at", "duration_ms"}.isdisjoint(answer.document)
    assert (await api.kill(execution_id)).status == 200
    assert (await api.ended(execution_id))["status"] == "killed"


@pytest.mark.parametrize(
    ("path", "field", "words"),
    [
        (f"/api/v1/executions/{UNKNOWN}?wait=61", "wait", "0 to 60"),
        (f"/api/v1/executions/{UNKNOWN}?wait=-1", "wait", "0 to 60"),
        (f"/api/v1/executions/{UNKNOWN}?wait=nan", "wait", "'nan'"),
        (f"/api/v1/executions/{UNKNOWN}?wait=soon", "wait", "'soon'"),
        ("/api/v1/executions?limit=0", "limit", "1 to 500"),
        ("/api/v1/executions?limit=501", "limit", "1 to 500"),
        ("/api/v1/executions?limit=1.5", "limit", "1.5"),
        ("/api/v1/executions?status=done", "status", "completed"),
        ("/api/v1/executions?cursor=x", "cursor", "next_cursor"),
        ("/api/v1/executions?session_id=ses_1", "session_id", "'ses_1' is not a session id"),
        ("/api/v1/executions?session_id=", "session_id", "'' is not a session id"),
        (f"/api/v1/executions/{UNKNOWN}/logs?stream=stdin", "stream", "stdout"),
        (f"/api/v1/executions/{UNKNOWN}/logs?follow=maybe", "follow", "0 or 1"),
        ("/api/v1/executions?status=%FF", "status", "completed"),
    ],
)
async def test_a_bad_query_names_its_parameter(api: Api, path: str, field: str, words: str) -> None:
    answer = await api.get(path)
    assert (answer.status, answer.document["code"], answer.document["field"]) == (
        400,
        "invalid_request",
        field,
    )
    assert words in answer.document["error"]


@pytest.mark.parametrize(
    "execution_id", [UNKNOWN, "exe_1", "nonsense", "%00", "%FF", "..%2F..%2Fx", "x" * 5000]
)
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/events")]
)
async def test_an_unknown_id_is_404(api: Api, method: str, rest: str, execution_id: str) -> None:
    answer = await api.request(method, f"/api/v1/executions/{execution_id}{rest}")
    assert (answer.status, answer.document["code"]) == (404, "not_found")
    assert len(answer.document["error"]) < 6000


async def test_the_root_path_is_the_console(api: Api) -> None:
    async with api.session.get("/") as answer:
        assert (answer.status, answer.url.path, answer.content_type) == (200, "/", "text/html")


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/v1/exec", "/api/v2/executions", "/api/v1/executions/a/b/c"]
)
async def test_an_unknown_path_is_a_404_in_json(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status, answer.document["code"]) == (404, "not_found")
    assert path in answer.document["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/exec/sync", "POST"),
        ("GET", "/api/v1/eval", "POST"),
        ("DELETE", "/api/v1/executions", "GET, HEAD"),
        ("PUT", f"/api/v1/executions/{UNKNOWN}", "DELETE, GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_that_lists_the_allowed_methods(
    api: Api, method: str, path: str, allowed: str
) -> None:
    answer = await api.request(method, path)
    assert (answer.status, answer.document["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == allowed
    assert allowed in answer.document["error"]


async def test_a_slash_at_the_end_makes_no_difference(api: Api) -> None:
    answer = await api.request("POST", "/api/v1/exec/sync/", data=form(script("print('slash')")))
    assert (answer.status, answer.document["stdout"]) == (200, "slash\n")
    answer = await api.request("POST", "/api/v1/exec/async/", data=form(script("")))
    assert answer.status == 202
    assert (await api.request("POST", "/api/v1/eval/", json={"code": ""})).status == 200
    path = f"/api/v1/executions/{(await api.ended(answer.document['execution_id']))['execution_id']}/"
    assert (await api.get(path)).document == (await api.get(path.rstrip("/"))).document
    assert (await api.get("/api/v1/executions/?limit=1")).status == 200
    assert (await api.session.get(f"{path}logs/")).status == 200
    assert (await api.session.get(f"{path}events/")).status == 200
    assert (await api.get("/health/")).status == (await api.get("/ready/")).status == 200
    assert (await api.request("DELETE", path)).status == 200


async def test_health_and_ready(api: Api) -> None:
    for path in ("/health", "/ready"):
        answer = await api.get(path)
        assert (answer.status, answer.document["status"]) == (200, "ok")


async def test_the_list_pages_newest_first_without_outputs(api: Api) -> None:
    made = [(await api.run(f"print({n})"))["execution_id"] for n in range(5)]
    pages, cursor = [], ""
    for _ in range(3):
        answer = await api.get(f"/api/v1/executions?limit=2{cursor}")
        assert answer.status == 200
        assert len(answer.document["executions"]) == 2
        assert all({"stdout", "stderr"}.isdisjoint(run) for run in answer.document["executions"])
        pages += [run["execution_id"] for run in answer.document["executions"]]
        cursor = f"&cursor={answer.document['next_cursor']}"
    assert pages[:5] == made[::-1]


@pytest.fixture(scope="module")
def guarded(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with tokens and without executions."""
    data_dir = tmp_path_factory.mktemp("auth") / "data"
    with running_server(data_dir, image, api_tokens="first, second-ü", warm_pool="1") as server:
        yield server


async def test_the_list_ends_and_filters_by_status(guarded: Server) -> None:
    async with api_of(guarded.url, headers={"Authorization": "Bearer first"}) as api:
        assert (await api.get("/api/v1/executions")).document == {"executions": [], "next_cursor": None}
        done = (await api.run("print('done')"))["execution_id"]
        running = await api.accepted(FOREVER)
        await api.until_printed(running, b"on")
        for status, expected in {"completed": [done], "running": [running], "failed": []}.items():
            listed = (await api.get(f"/api/v1/executions?status={status}")).document
            assert [run["execution_id"] for run in listed["executions"]] == expected
            assert listed["next_cursor"] is None
        exact = (await api.get("/api/v1/executions?limit=2")).document
        assert [run["execution_id"] for run in exact["executions"]] == [running, done]
        assert exact["next_cursor"] is None
        await api.kill(running)


async def test_tokens_guard_everything_but_the_health_checks(guarded: Server) -> None:
    async with api_of(guarded.url) as api:
        assert (await api.get("/health")).status == 200
        assert (await api.get("/ready/")).status == 200
        for wrong in (
            None,
            "Bearer",
            "Bearer ",
            "Bearer firs",
            "Basic first",
            "first",
            "Bearer first second-ü",
        ):
            headers = {} if wrong is None else {"Authorization": wrong}
            for method, path in (
                ("GET", "/api/v1/executions"),
                ("POST", "/api/v1/eval"),
                ("GET", "/nothing"),
            ):
                answer = await api.request(method, path, headers=headers)
                assert (answer.status, answer.document["code"]) == (401, "unauthorized"), wrong
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        answer = await api.sync(script(""), headers={"Authorization": "Bearer wrong"})
        assert answer.status == 401
        twice = CIMultiDict([("Authorization", "Bearer first"), ("Authorization", "Bearer wrong")])
        async with api.session.get("/api/v1/executions", headers=twice) as response:
            assert response.status == 401
        for token in ("Bearer first", "bearer second-ü"):
            answer = await api.sync(script("print('in')"), headers={"Authorization": token})
            assert (answer.status, answer.document["stdout"]) == (200, "in\n")


async def test_the_log_of_a_busy_server_holds_no_trace(server: Server) -> None:
    assert "Traceback" not in server.log.read_text()
