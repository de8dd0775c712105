"""Test JSON logs: each line is one object that names its subject, and contains no secrets of programs or callers."""

import json
import logging
import re
import secrets
import socket
from pathlib import Path
from typing import Any

import pytest

from pyexec.logs import JsonFormatter, TextFormatter
from tests.support.api import Api, api_of, form
from tests.support.archives import script
from tests.support.cases import sampled
from tests.support.server import NETWORKS, Server, running_server

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def lines(server: Server) -> list[dict[str, Any]]:
    """Return all log lines of the server, parsed."""
    return [json.loads(line) for line in server.log.read_text().splitlines()]


async def test_every_json_line_names_its_subject(image: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", image, log_format="json", warm_pool="1") as server:
        async with api_of(server.url) as api:
            one = await api.run("print(1)")
            two = await api.accepted("print(2)")
            await api.ended(two)
            assert len(await api.all_events(two)) > 3
            key = {"Idempotency-Key": secrets.token_hex(8)}
            three = await api.sync(script("print(3)"), headers=key)
            assert (await api.sync(script("print(3)"), headers=key)).document == three.document
            source = script("print('x' * 100_000)")
            async with api.session.get(f"{server.url}/") as page:
                page_bytes = len(await page.read())
            async with api.session.post(f"{server.url}/api/v1/exec/sync", data=form(source)) as large:
                large_bytes = len(await large.read())
            await api.get("/nowhere")
            await api.get("/health")
    logged = lines(server)
    assert all(TIME.fullmatch(line["time"]) and line["level"] and line["message"] for line in logged)
    assert len({line["replica"] for line in logged}) == 1
    access = [line for line in logged if line["logger"] == "pyexec.web.access"]
    told = [(line["method"], line["route"], line["status"], line.get("execution_id")) for line in access]
    assert told[:2] == [
        ("POST", "/api/v1/exec/sync", 200, one["execution_id"]),
        ("POST", "/api/v1/exec/async", 202, two),
    ]
    assert ("GET", "/api/v1/executions/{id}", 200, two) in told
    assert ("GET", "/api/v1/executions/{id}/events", 200, two) in told
    assert told.count(("POST", "/api/v1/exec/sync", 200, three.document["execution_id"])) == 2
    assert told[-1] == ("GET", "unknown", 404, None)
    assert all(line["duration_ms"] > 0 and line["bytes"] > 0 for line in access)
    assert [line["bytes"] for line in access if line["route"] == "/"] == [page_bytes]
    assert large_bytes in [line["bytes"] for line in access if line["route"] == "/api/v1/exec/sync"]


@sampled("log_format", ["text", "json"])
async def test_log_lines_of_background_tasks_name_their_execution(
    image: str, tmp_path: Path, log_format: str
) -> None:
    """A task that several executions can share logs the failure of an environment. Requests are not logged here."""
    settings = {"log_format": log_format, "access_log": "off", "warm_pool": "0"}
    with running_server(tmp_path / "data", image, **settings) as server:
        async with api_of(server.url) as api:
            failed = await api.run("print(1)", docker_image="localhost:1/nothing:1")
            await api.get("/api/v1/executions")
    log = server.log.read_text()
    assert "/api/v1/executions" not in log
    line = next(line for line in log.splitlines() if "preparing localhost:1/nothing:1 failed" in line)
    if log_format == "json":
        assert json.loads(line)["execution_id"] == failed["execution_id"]
    else:
        assert (
            f" pyexec.sandbox.environments.shared_work: [{failed['execution_id']}] preparing localhost:1"
            in line
        )


async def test_no_secret_is_ever_logged(image: str, tmp_path: Path) -> None:
    """Log at DEBUG, and cause many kinds of errors."""
    token, secret = f"t{secrets.token_hex(8)}", f"s{secrets.token_hex(8)}"
    settings = {**NETWORKS, "api_tokens": token, "log_level": "DEBUG", "log_format": "json", "warm_pool": "1"}
    with running_server(tmp_path / "data", image, **settings) as server:
        async with api_of(server.url, headers={"Authorization": f"Bearer {token}"}) as api:
            await _misbehave(api, secret)
        _send(server, f"GET /health HTTP/1.1\r\nAuthorization: Bearer {token}\r\nBad Header {secret}\r\n\r\n")
        _send(server, f"{secret} {token}\r\n\r\n")
        wrong = {"Authorization": f"Bearer {secret}"}
        async with api_of(server.url, headers=wrong) as api:
            assert (await api.get("/api/v1/executions")).status == 401
    log = server.log.read_text()
    assert len(lines(server)) > 10
    for kept in (token, secret):
        assert kept not in log, next(line for line in log.splitlines() if kept in line)


async def _misbehave(api: Api, secret: str) -> None:
    source = f"import sys; print('{secret}', sys.stdin.read()); raise ValueError('{secret}')"
    await api.run(source, stdin=secret, env_vars=[f"A={secret}"], script_args=[secret])
    await api.run(f"print(1) #{secret}", pre_commands=[f"echo {secret}; {secret}"])
    await api.run("print(1)", requirements_txt=f"{secret}==1 # {secret}", config={"timeout_seconds": 5})
    await api.eval({"code": f"1 + '{secret}'", "eval_last_expr": True, "stdin": secret})
    assert (await api.sync(script("1"), {"entrypoint": f"{secret}.py"})).status == 400
    assert (await api.sync(script("1"), {secret: secret})).status == 400
    assert (await api.sync(script("1"), f"{{{secret}")).status == 400
    assert (await api.get(f"/api/v1/executions?status={secret}")).status == 400
    key = {"Idempotency-Key": secret}
    assert (await api.sync(script("1"), headers=key)).status == 200
    assert (await api.sync(script("2"), headers=key)).status == 409


def _send(server: Server, text: str) -> None:
    """Send raw bytes that may not be HTTP."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


async def test_a_startup_error_is_logged_as_json(image: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a directory should be")
    with (
        pytest.raises(RuntimeError, match="did not start"),
        running_server(tmp_path / "data", image, log_format="json", docker_runtime="none-such"),
    ):
        pass
    (line,) = [json.loads(text) for text in (tmp_path / "data.log").read_text().splitlines()]
    assert (line["level"], "PYEXEC_DOCKER_RUNTIME is 'none-such'" in line["message"]) == ("CRITICAL", True)


EVIL = "a\x1b[2J\x9b1m\r\u202e\u061c\x7f\n2026-01-01 00:00:00,000 INFO pyexec: forged"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_no_control_character_of_others_reaches_the_log(formatter: logging.Formatter) -> None:
    """A record is one line, and nothing in its traceback looks like another one."""
    cause = (ValueError, ValueError(EVIL), None)
    record = logging.LogRecord("pyexec.test", logging.WARNING, "", 1, "pip said %s", (EVIL,), cause)
    text = formatter.format(record)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u061c]", text)
    assert "[2J" in text
    assert [line for line in text.splitlines() if not line.startswith("    ")] == text.splitlines()[:1]
    if isinstance(formatter, JsonFormatter):
        assert json.loads(text)["message"] == f"pip said {EVIL}"
