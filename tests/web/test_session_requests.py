"""Test that requests to interpreter sessions are checked: unknown and closed sessions, bad fields, large bodies."""

from typing import Any

import pytest

from tests.support.api import Api
from tests.support.cases import sampled
from tests.support.sessions import Session

UNKNOWN = "ses_" + 32 * "0"
MEBIBYTE = 1024 * 1024


@sampled("mebibytes", [3, 10], every=2)
async def test_long_code_runs(shared: Session, mebibytes: int) -> None:
    result = await shared.result("x = '" + mebibytes * MEBIBYTE * "a" + "'\nlen(x)")
    assert result["result"] == str(mebibytes * MEBIBYTE)
    too_long = await shared.eval("#" * 16 * MEBIBYTE)
    assert (too_long.status, too_long.document["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "action"),
    [
        *(("GET", ""), ("DELETE", ""), ("POST", "/eval"), ("POST", "/eval/async"), ("POST", "/interrupt")),
        *(("POST", "/restart"), ("GET", "/files"), ("GET", "/files/a")),
        *(("PUT", "/files/a"), ("DELETE", "/files/a")),
    ],
)
async def test_an_unknown_session_is_a_404(api: Api, method: str, action: str) -> None:
    for session_id in (UNKNOWN, "ses_x"):
        path = f"/api/v1/sessions/{session_id}{action}"
        answer = await api.request(method, path, json={"code": "1"} if method in ("POST", "PUT") else None)
        assert (answer.status, answer.document["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"docker_image": "no image"}, "docker_image"),
        ({"config": {"memory_mb": 1}}, "config.memory_mb"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": 3601}, "idle_timeout_seconds"),
        ({"lifetime_seconds": 1e9}, "lifetime_seconds"),
        ({"stdin": "x"}, "stdin"),
        ([], "body"),
    ],
)
async def test_a_bad_request_names_its_field(api: Api, body: Any, field: str) -> None:
    answer = await api.request("POST", "/api/v1/sessions", json=body)
    assert (answer.status, answer.document["field"]) == (400, field)


async def test_variables_with_which_no_interpreter_starts_are_a_bad_request(
    api: Api, session_image: str
) -> None:
    body = {"docker_image": session_image, "env_vars": ["PYTHONHASHSEED=x"], "config": {"memory_mb": 256}}
    answer = await api.request("POST", "/api/v1/sessions", json=body)
    assert (answer.status, answer.document["field"]) == (400, "env_vars")
    assert "PYTHONHASHSEED must be" in answer.document["error"]


async def test_a_bad_cell_names_its_field(shared: Session) -> None:
    for body, field in (
        ({}, "code"),
        ({"code": 1}, "code"),
        ({"code": "1", "stdin": ""}, "stdin"),
        ({"code": "1", "timeout_seconds": 0}, "timeout_seconds"),
        ({"code": "1", "timeout_seconds": 1e9}, "timeout_seconds"),
    ):
        answer = await shared.api.request("POST", f"{shared.path}/eval", json=body)
        assert (answer.status, answer.document["field"]) == (400, field)


async def test_an_option_of_another_request_is_explained(shared: Session) -> None:
    for field, value, said in (
        ("requirements_txt", "six", "unknown field 'requirements_txt'; set it when the session is opened"),
        ("config", {}, "send timeout_seconds beside code"),
        ("eval_last_expr", True, "a cell always returns the value of its last expression"),
        ("timeout", 1, "did you mean 'timeout_seconds'?"),
    ):
        answer = await shared.api.request("POST", f"{shared.path}/eval", json={"code": "1", field: value})
        assert (answer.status, answer.document["field"]) == (400, field)
        assert said in answer.document["error"]


async def test_a_compressed_body_is_rejected(shared: Session) -> None:
    for method, path in (("POST", "eval"), ("PUT", "files/a")):
        headers = {"Content-Encoding": "gzip"}
        answer = await shared.api.request(method, f"{shared.path}/{path}", data=b"1", headers=headers)
        assert answer.status == 415


@pytest.mark.full
async def test_a_session_with_hardly_any_processor_names_it_as_the_cause(
    api: Api, session_image: str
) -> None:
    body = {"docker_image": session_image, "config": {"memory_mb": 256, "cpus": 0.01}}
    answer = await api.request("POST", "/api/v1/sessions", json=body)
    assert (answer.status, answer.document["field"]) == (400, "config.cpus")
    assert "did not start" in answer.document["error"]
    assert "use at least 0.1" in answer.document["error"]
