"""The sessions of a server in memory, for tests of the clients. Cells run in this process.

The cell `sleep` lasts until it is interrupted; `stubborn` until it is killed; `die` ends with a new interpreter;
`closed` with its session; `leave 3` exits with this code; `text` and `table` show text, and text with HTML; `frame` has
a value with HTML."""

import ast
import asyncio
import base64
import contextlib
import io
import threading
import traceback
from typing import Any

from attrs import define, field

TIME = "2026-01-01T00:00:00.000000Z"
IMAGE = "python:3.12-slim"


@define
class FakeSession:
    id: str
    request: dict[str, Any]
    files: dict[str, bytes] = field(factory=dict)
    variables: dict[str, Any] = field(factory=dict)
    is_open: bool = True
    restarts: int = 0
    running: str | None = None
    interrupted: asyncio.Event = field(factory=asyncio.Event)
    killed: asyncio.Event = field(factory=asyncio.Event)

    def state(self) -> dict[str, Any]:
        state = {
            "id": self.id,
            "status": "open" if self.is_open else "closed",
            "created_at": TIME,
            "replica": "rep_1",
            "docker_image": self.request.get("docker_image", IMAGE),
            "idle_timeout_seconds": self.request.get("idle_timeout_seconds", 600.0),
            "lifetime_seconds": self.request.get("lifetime_seconds", 3600.0),
            "expires_at": TIME,
            "interpreter_restarts": self.restarts,
            "cells": {"waiting": 0, "running": self.running},
        }
        return state if self.is_open else state | {"close_reason": "deleted"}

    def restart(self) -> None:
        self.restarts += 1
        self.variables.clear()


class FakeCells:
    """Runs cells. `results` has their results by the id of the execution. The cell `sleep` sets `sleeping`."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self.sleeping = threading.Event()

    async def run(self, session: FakeSession, body: dict[str, Any], execution_id: str) -> dict[str, Any]:
        session.running = execution_id
        session.interrupted.clear()
        out, err = io.StringIO(), io.StringIO()
        result: dict[str, Any] = {
            "execution_id": execution_id,
            "session_id": session.id,
            "status": "completed",
            "created_at": TIME,
            "started_at": TIME,
            "exit_code": 0,
            "displays": [],
            "truncated": {"stdout": False, "stderr": False},
        }
        code = body["code"]
        if code == "sleep":
            self.results[execution_id] = result | {"status": "running"}
            self.sleeping.set()
            await session.interrupted.wait()
            err.write("KeyboardInterrupt\n")
            result |= {"exit_code": 1, "error_type": "KeyboardInterrupt", "error": ""}
        elif code == "stubborn":
            session.killed.clear()
            await session.killed.wait()
            session.restart()
            result |= {"status": "killed", "error_type": "killed", "error": "", "interpreter_restarted": True}
            result["exit_code"] = None
        elif code == "die":
            session.restart()
            result |= {"status": "failed", "error_type": "timeout", "error": "it ran longer than 1 s"}
            result |= {"exit_code": 124, "interpreter_restarted": True}
        elif code == "closed":
            session.is_open = False
            result |= {"status": "failed", "error_type": "session_closed", "error": "the session was closed"}
        elif code.startswith("leave "):
            result |= {"exit_code": int(code.removeprefix("leave ")), "error_type": "SystemExit"}
        elif code == "show":
            png = base64.b64encode(b"\x89PNG").decode()
            result["displays"] = [{"data": {"image/png": png}, "metadata": {}}]
        elif code in ("text", "table"):
            html = {"text/html": "<b>"} if code == "table" else {}
            result["displays"] = [{"data": {"text/plain": f"a {code}"} | html, "metadata": {}}]
        elif code == "frame":
            result["displays"] = [{"data": {"text/plain": "a\nframe", "text/html": "<b>"}, "metadata": {}}]
            result["result"] = "a\nframe"
        else:
            session.variables["files"] = session.files
            with contextlib.redirect_stdout(out):
                try:
                    result |= self.evaluate(code, session.variables)
                except Exception as error:  # noqa: BLE001  any error of the cell
                    err.write(traceback.format_exc(limit=0))
                    result |= {"exit_code": 1, "error_type": type(error).__name__, "error": str(error)}
        session.running = None
        self.results[execution_id] = result | {"stdout": out.getvalue(), "stderr": err.getvalue()}
        return self.results[execution_id]

    def evaluate(self, code: str, variables: dict[str, Any]) -> dict[str, Any]:
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), variables)
        if last is None:
            return {}
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), variables)
        return {} if value is None else {"result": repr(value)}
