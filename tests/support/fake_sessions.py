"""A server with the API for sessions, in memory, for tests of the clients. Cells run in this process.

The cell `sleep` lasts until it is interrupted; `stubborn` until it is killed; `die` ends with a new interpreter;
`closed` with its session; `leave 3` exits with this code; `text` and `table` show text, and text with HTML; `frame` has
a value with HTML. A session of the image `slow` opens when the test allows it; one of the image `stuck` cannot be
closed. The download of the file `breaks` breaks."""

import ast
import asyncio
import base64
import contextlib
import fnmatch
import io
import json
import tarfile
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from attrs import define, field

TIME = "2026-01-01T00:00:00.000000Z"
IMAGE = "python:3.12-slim"


def failure(status: int, code: str, text: str) -> web.Response:
    return web.json_response({"error": text, "code": code}, status=status)


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


class FakeSessions:
    """The server. `requests` are the bodies of the requests for cells."""

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.cells: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.openapi: dict[str, Any] = {}
        self.tokens: set[str | None] = set()
        self.opening = threading.Event()
        self.may_open = threading.Event()

    def hold_opening(self) -> None:
        """Let the next session in the image `slow` open only when `may_open` is set."""
        self.opening.clear()
        self.may_open.clear()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=2**30, middlewares=[self.record_token])
        session = "/api/v1/sessions/{id}"
        application.add_routes(
            [
                web.get("/openapi.json", self.get_openapi),
                web.post("/api/v1/sessions", self.open),
                web.get("/api/v1/sessions", self.list),
                web.get(session, self.get),
                web.delete(session, self.close),
                web.post(f"{session}/eval", self.eval),
                web.post(f"{session}/eval/async", self.submit),
                web.post(f"{session}/interrupt", self.interrupt),
                web.post(f"{session}/restart", self.restart),
                web.get(f"{session}/files", self.list_files),
                web.put(session + "/files/{path:.+}", self.put_file),
                web.get(session + "/files/{path:.+}", self.get_file),
                web.delete(session + "/files/{path:.+}", self.delete_file),
                web.get("/api/v1/executions/{cell}", self.get_cell),
                web.delete("/api/v1/executions/{cell}", self.kill_cell),
            ]
        )
        return application

    @web.middleware
    async def record_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.tokens.add(request.headers.get("Authorization"))
        return await handler(request)

    async def get_openapi(self, _: web.Request) -> web.Response:
        return web.json_response(self.openapi)

    async def open(self, request: web.Request) -> web.Response:
        files: dict[str, bytes] = {}
        if request.content_type == "application/json":
            metadata = await request.json()
        else:
            form = await request.post()
            metadata = json.loads(bytes(form["metadata"]))  # aiohttp decodes only text
            with tarfile.open(fileobj=form["tar"].file) as archive:
                for member in archive.getmembers():
                    files[member.name] = archive.extractfile(member).read()
        if metadata.get("docker_image") == "none":
            return failure(400, "invalid_request", "docker_image none is not allowed")
        if metadata.get("docker_image") == "slow":
            self.opening.set()
            await asyncio.to_thread(self.may_open.wait, 60)
        made = FakeSession(f"ses_{len(self.sessions):032x}", metadata, files)
        self.sessions[made.id] = made
        return web.json_response(made.state(), status=201)

    async def list(self, _: web.Request) -> web.Response:
        return web.json_response({"sessions": [each.state() for each in self.sessions.values()]})

    def find(self, request: web.Request) -> FakeSession:
        found = self.sessions.get(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text=json.dumps({"error": "no such session", "code": "not_found"}))
        if not found.is_open and request.method != "GET":
            raise web.HTTPGone(
                text=json.dumps({"error": "the session is closed (deleted)", "code": "session_closed"})
            )
        return found

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response(self.find(request).state())

    async def close(self, request: web.Request) -> web.Response:
        found = self.find(request)
        if found.request.get("docker_image") == "stuck":
            return failure(500, "internal", "internal server error; see the server log")
        found.is_open = False
        return web.json_response(found.state())

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
            self.cells[execution_id] = result | {"status": "running"}
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
        self.cells[execution_id] = result | {"stdout": out.getvalue(), "stderr": err.getvalue()}
        return self.cells[execution_id]

    def evaluate(self, code: str, variables: dict[str, Any]) -> dict[str, Any]:
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), variables)
        if last is None:
            return {}
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), variables)
        return {} if value is None else {"result": repr(value)}

    async def eval(self, request: web.Request) -> web.StreamResponse:
        session, body = self.find(request), await request.json()
        key = request.headers.get("Idempotency-Key")
        self.requests.append(body)
        if key in self.keys:
            return web.json_response(self.cells[self.keys[key]])
        execution_id = f"exe_{len(self.requests):032x}"
        if key is not None:
            self.keys[key] = execution_id
        if "text/event-stream" not in request.headers.get("Accept", ""):
            return web.json_response(await self.run(session, body, execution_id))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = 0

        async def send(name: str, data: dict[str, Any]) -> None:
            nonlocal number
            number += 1
            await response.write(f"id: {number}.0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode())

        for name in ("submitted", "claimed", "running"):
            await send(name, {"type": name, "execution_id": execution_id})
        result = await self.run(session, body, execution_id)
        for stream in ("stdout", "stderr"):
            if result[stream]:
                data = base64.b64encode(result[stream].encode()).decode()
                await send("output", {"stream": stream, "data": data})
        for display in result["displays"]:
            await send("display", display)
        await send("finished" if result["status"] == "completed" else result["status"], result)
        return response

    async def submit(self, request: web.Request) -> web.Response:
        session, body = self.find(request), await request.json()
        self.requests.append(body)
        result = await self.run(session, body, f"exe_{len(self.requests):032x}")
        return web.json_response({"execution_id": result["execution_id"], "status": "pending"}, status=202)

    async def get_cell(self, request: web.Request) -> web.Response:
        return web.json_response(self.cells[request.match_info["cell"]])

    async def kill_cell(self, request: web.Request) -> web.Response:
        for session in self.sessions.values():
            if session.running == request.match_info["cell"]:
                session.interrupted.set()
                session.killed.set()
        return web.json_response({"status": "killed"})

    async def interrupt(self, request: web.Request) -> web.Response:
        session = self.find(request)
        session.interrupted.set()
        return web.json_response({"interrupted": session.running is not None})

    async def restart(self, request: web.Request) -> web.Response:
        session = self.find(request)
        session.restart()
        return web.json_response(session.state())

    async def put_file(self, request: web.Request) -> web.Response:
        self.find(request).files[request.match_info["path"]] = await request.read()
        return web.Response(status=204)

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["path"] == "breaks":
            response = web.StreamResponse(headers={"Content-Length": "10"})
            await response.prepare(request)
            await response.write(b"begin")
            request.transport.close()
            return response
        content = self.find(request).files.get(request.match_info["path"])
        if content is None:
            return failure(404, "not_found", "the session has no such file")
        return web.Response(body=content)

    async def delete_file(self, request: web.Request) -> web.Response:
        self.find(request).files.pop(request.match_info["path"], None)
        return web.Response(status=204)

    async def list_files(self, request: web.Request) -> web.Response:
        glob = request.query.get("glob", "*")
        files = {n: c for n, c in self.find(request).files.items() if fnmatch.fnmatch(n, glob)}
        if request.headers.get("Accept") == "application/x-tar":
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                for name, content in files.items():
                    header = tarfile.TarInfo(name)
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
            return web.Response(body=buffer.getvalue(), content_type="application/x-tar")
        listed = [{"path": name, "size": len(content)} for name, content in files.items()]
        return web.json_response({"files": listed, "truncated": False})


@contextlib.contextmanager
def fake_sessions() -> Iterator[tuple[str, FakeSessions]]:
    """Run the server in a thread; yield its URL."""
    fake, loop, ready = FakeSessions(), asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{ports[0]}", fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
