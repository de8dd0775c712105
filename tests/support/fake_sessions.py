"""A server with the API for sessions, in memory, for tests of the clients. `fake_cells` runs the cells.

A session of the image `slow` opens when the test allows it; one of the image `stuck` cannot be closed. The download of
the file `breaks` breaks."""

import asyncio
import base64
import contextlib
import fnmatch
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.support.fake_cells import FakeCells, FakeSession


def failure(status: int, code: str, text: str) -> web.Response:
    return web.json_response({"error": text, "code": code}, status=status)


class FakeSessions:
    """The server. `requests` are the bodies of the requests for cells."""

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.cells = FakeCells()
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

    async def eval(self, request: web.Request) -> web.StreamResponse:
        session, body = self.find(request), await request.json()
        key = request.headers.get("Idempotency-Key")
        self.requests.append(body)
        if key in self.keys:
            return web.json_response(self.cells.results[self.keys[key]])
        execution_id = f"exe_{len(self.requests):032x}"
        if key is not None:
            self.keys[key] = execution_id
        if "text/event-stream" not in request.headers.get("Accept", ""):
            return web.json_response(await self.cells.run(session, body, execution_id))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = 0

        async def send(name: str, data: dict[str, Any]) -> None:
            nonlocal number
            number += 1
            await response.write(f"id: {number}.0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode())

        for name in ("submitted", "claimed", "running"):
            await send(name, {"type": name, "execution_id": execution_id})
        result = await self.cells.run(session, body, execution_id)
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
        result = await self.cells.run(session, body, f"exe_{len(self.requests):032x}")
        return web.json_response({"execution_id": result["execution_id"], "status": "pending"}, status=202)

    async def get_cell(self, request: web.Request) -> web.Response:
        return web.json_response(self.cells.results[request.match_info["cell"]])

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
