"""Test that setups install from an index with a password that they cannot read."""

import asyncio
import socket
from asyncio import open_connection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pyexec.adapters.index_proxy import IndexProxy, basic_auth, serve_index
from pyexec.addresses import split_host_port
from pyexec.errors import SettingsError
from tests.support.api import api_of
from tests.support.containers import gateway
from tests.support.index import own_network, running_index, wheel
from tests.support.server import running_server

PASSWORD = "secret-of-the-index"


def free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


async def test_a_setup_installs_from_an_index_whose_password_it_cannot_read(
    image: str, tmp_path: Path
) -> None:
    greet = wheel("greet", "1.0", "WORD = 'hello'\n")
    with own_network() as network, running_index(network, greet, password=PASSWORD) as index:
        address = f"{gateway(network)}:{free_port(gateway(network))}"
        settings = {
            "pip_index_url": index.url.replace("http://", f"http://reader:{PASSWORD}@"),
            "pip_proxy": address,
            "setup_network": network,
            "warm_pool": "0",
        }
        with running_server(tmp_path / "data", image, **settings) as server:
            async with api_of(server.url) as api:
                result = await api.run(
                    "import greet; print(greet.WORD); print(open('/opt/seen').read())",
                    requirements_txt="greet==1.0",
                    pre_commands=["env > /opt/seen"],
                )
            assert result["stdout"].startswith("hello\n"), result
            seen = dict(line.split("=", 1) for line in result["stdout"].splitlines() if "=" in line)
            assert PASSWORD not in result["stdout"]
            # The password of a setup is not valid after the setup.
            async with aiohttp.ClientSession() as session:
                assert urlsplit(seen["PIP_INDEX_URL"]).netloc.endswith(f"@{address}")
                async with session.get(f"{seen['PIP_INDEX_URL']}/greet/") as response:
                    assert response.status == 401


async def test_an_environment_belongs_to_its_index(image: str, tmp_path: Path) -> None:
    """After a change of the index, its packages count, and not those of the index before."""
    words = []
    for word in ("old", "new"):
        greet = wheel("greet", "1.0", f"WORD = {word!r}\n")
        with own_network() as network, running_index(network, greet) as index:
            settings = {"pip_index_url": index.url, "setup_network": network, "warm_pool": "0"}
            with running_server(tmp_path / word, image, **settings) as server:
                async with api_of(server.url) as api:
                    result = await api.run(
                        "import greet; print(greet.WORD, end='')", requirements_txt="greet==1.0"
                    )
            words.append(result["stdout"])
    assert words == ["old", "new"]


async def index_page(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != basic_auth("reader", PASSWORD):
        raise web.HTTPUnauthorized
    page = f"{request.url.origin()}/team/files/a.whl https://elsewhere.example/b.whl"
    return web.Response(text=page, content_type="text/html")


async def to_file(_: web.Request) -> web.Response:
    raise web.HTTPFound("/team/simple/greet/")


async def broken_file(request: web.Request) -> web.StreamResponse:
    """Begin a file, and break the connection."""
    response = web.StreamResponse()
    response.content_length = int(request.query["size"]) or None
    await response.prepare(request)
    await response.write(b"begun")
    if request.transport is not None:
        request.transport.close()
    return response


async def test_a_file_that_the_index_breaks_off_is_a_broken_transfer() -> None:
    """An error response in its place would look like the rest of the file."""
    app = web.Application()
    app.router.add_get("/files/a.whl", broken_file)
    async with TestServer(app) as index, aiohttp.ClientSession() as session:
        url = str(index.make_url("/simple"))
        async with serve_index(f"127.0.0.1:{free_port('127.0.0.1')}", url, None) as proxy:
            with proxy.grant() as granted:
                for size in (50, 0):  # 0: the length is unknown
                    file = f"http://{proxy.address}/files/a.whl?size={size}"
                    async with session.get(file, headers={"Authorization": auth_of(granted)}) as response:
                        assert response.status == 200
                        with pytest.raises(aiohttp.ClientError):
                            pytest.fail(f"received {await response.read()!r}")


async def test_the_proxy_serves_only_the_index_and_only_running_setups() -> None:
    app = web.Application()
    app.router.add_get("/team/simple/greet/", index_page)
    app.router.add_get("/team/files/a.whl", to_file)
    app.router.add_get("/admin", index_page)
    async with TestServer(app) as index, aiohttp.ClientSession() as session:
        url = str(index.make_url("/team/simple").with_user("reader").with_password(PASSWORD))
        async with serve_index(f"127.0.0.1:{free_port('127.0.0.1')}", url, None) as proxy:
            base = f"http://{proxy.address}"

            async def status(path: str, *, auth: str) -> int:
                async with session.get(
                    f"{base}{path}", headers={"Authorization": auth}, allow_redirects=False
                ) as response:
                    return response.status

            with proxy.grant() as granted:
                auth = auth_of(granted)
                async with session.get(
                    f"{base}/team/simple/greet/", headers={"Authorization": auth}
                ) as response:
                    assert await response.text() == f"{base}/team/files/a.whl https://elsewhere.example/b.whl"
                assert await status("/team/files/a.whl", auth=auth) == 302
                assert await status("/team/none", auth=auth) == 404
                assert await status("/admin", auth=auth) == 404
                for path in ("/team/%2e%2e/admin", "/team/..%2fadmin"):
                    assert await raw_status(proxy, path, auth) == 404
                async with session.post(
                    f"{base}/team/simple/greet/", headers={"Authorization": auth}
                ) as response:
                    assert response.status == 405
                assert await raw_status(proxy, "/team/simple/greet/", "Basic \udcff") == 401
                assert await status("/team/simple/greet/", auth="") == 401
                wrong = basic_auth("setup", "guess")
                assert await status("/team/simple/greet/", auth=wrong) == 401
            assert await status("/team/simple/greet/", auth=auth) == 401


async def found(_: web.Request) -> web.Response:
    return web.Response()


async def test_no_server_finds_a_path_outside_of_the_index() -> None:
    """Tomcat and Jetty ignore what follows a semicolon, and a server behind another one may decode a path again."""
    app = web.Application()
    app.router.add_get("/{path:.*}", found)
    async with (
        TestServer(app) as index,
        serve_index(f"127.0.0.1:{free_port('127.0.0.1')}", str(index.make_url("/a/simple")), None) as proxy,
    ):
        with proxy.grant() as granted:
            assert await raw_status(proxy, "/a/greet;1/..b/%252e", auth_of(granted)) == 200
            for step in ("..;", "..;x=y", "..%3b", "%2e%2e;", "%252e%252e", "..%09", "..%255cx"):
                assert await raw_status(proxy, f"/a/{step}/admin", auth_of(granted)) == 404, step


async def large_page(request: web.Request) -> web.StreamResponse:
    """Send links in two parts each, without an end, and count the bytes."""
    response = web.StreamResponse(headers={"Content-Type": "text/html"})
    await response.prepare(request)
    link = f"<{request.url.origin()}/a/b.whl> <http://elsewhere.example/c.whl>\n".encode()
    for cut in range(len(link)):
        await response.write(link[:cut])
        await asyncio.sleep(0.005)
        await response.write(link[cut:])
    while True:
        await response.write(link * 1000)
        request.app[SENT].append(len(link) * 1000)


SENT = web.AppKey("sent", list[int])


async def test_a_page_that_a_setup_does_not_read_stays_out_of_memory() -> None:
    app = web.Application()
    sent: list[int] = []
    app[SENT] = sent
    app.router.add_get("/a/simple/", large_page)
    async with (
        TestServer(app) as index,
        serve_index(f"127.0.0.1:{free_port('127.0.0.1')}", str(index.make_url("/a/simple")), None) as proxy,
    ):
        with proxy.grant() as granted:
            url, auth = f"http://{proxy.address}/a/simple/", {"Authorization": auth_of(granted)}
            async with aiohttp.ClientSession() as session, session.get(url, headers=auth) as response:
                for _ in range(1000):
                    line = await response.content.readline()
                    own = f"<http://{proxy.address}/a/b.whl>"
                    assert line.decode() == f"{own} <http://elsewhere.example/c.whl>\n"
                await asyncio.sleep(1)
                assert sum(sent) < 40 << 20


def auth_of(granted: str) -> str:
    parts = urlsplit(granted)
    return basic_auth(parts.username or "", parts.password or "")


async def raw_status(proxy: IndexProxy, path: str, auth: str) -> int:
    """Send a path as it is; a client would remove the dots."""
    reader, writer = await open_connection(*split_host_port(proxy.address))
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: x",
        f"Authorization: {auth}",
        "Connection: close",
        "",
        "",
    )
    writer.write("\r\n".join(lines).encode(errors="surrogateescape"))
    try:
        return int((await reader.read()).split()[1])
    finally:
        writer.close()


async def test_an_address_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"cannot be used: .*in use"):
            async with serve_index(f"127.0.0.1:{taken.getsockname()[1]}", "http://index/simple", None):
                pass
