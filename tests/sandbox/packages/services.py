"""Packages for servers and clients; all of them use the loopback interface."""

NETWORK = {
    "requests": """
import http.server, threading, requests
s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=s.serve_forever, daemon=True).start()
assert requests.get(f'http://127.0.0.1:{s.server_port}/').status_code == 200
s.shutdown()
""",
    "httpx": """
import httpx
t = httpx.MockTransport(lambda r: httpx.Response(201))
assert httpx.Client(transport=t).get('http://x').status_code == 201
""",
    "aiohttp": """
import asyncio, aiohttp
from aiohttp import web
async def main():
    app = web.Application()

    async def hello(request):
        return web.Response(text='hello')
    app.router.add_get('/', hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as s, s.get(f'http://127.0.0.1:{port}') as r:
        assert await r.text() == 'hello'
    await runner.cleanup()
asyncio.run(main())
""",
    "uvloop": """
import asyncio, uvloop
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    process = await asyncio.create_subprocess_exec('echo', 'x', stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b'x\\n'
    server.close()
uvloop.run(main())
""",
    "gevent": """
import gevent, gevent.socket, gevent.subprocess as p
j = [gevent.spawn(gevent.sleep, 0.01)]
gevent.joinall(j)
assert p.check_output(['echo', 'x']) == b'x\\n'
""",
    "fastapi": """
import fastapi
a = fastapi.FastAPI()
assert a.openapi()['openapi']
""",
    "uvicorn": """
import threading, time, urllib.request, uvicorn
async def app(scope, receive, send):
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': b'up'})
server = uvicorn.Server(uvicorn.Config(app, port=8123, log_level='error', lifespan='off'))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.01)
assert urllib.request.urlopen('http://127.0.0.1:8123').read() == b'up'
server.should_exit = True
thread.join()
""",
    "flask": """
import flask
a = flask.Flask('a')
a.route('/')(lambda: 'x')
assert a.test_client().get('/').data == b'x'
""",
    "django": """
import django
from django.conf import settings
settings.configure()
django.setup()
from django.template import engines
assert django.VERSION
""",
    "tornado": """
import tornado.ioloop as i, tornado.gen as g
i.IOLoop().run_sync(lambda: g.sleep(0.01))
""",
    "twisted": """
from twisted.internet import reactor
reactor.callLater(0.01, reactor.stop)
reactor.run()
""",
    "pyzmq": """
import zmq
c = zmq.Context()
a, b = (c.socket(zmq.PAIR), c.socket(zmq.PAIR))
p = a.bind_to_random_port('tcp://127.0.0.1')
b.connect(f'tcp://127.0.0.1:{p}')
b.send(b'x')
assert a.recv() == b'x'
c.destroy(0)
""",
    "grpcio": """
import grpc
from concurrent import futures
server = grpc.server(futures.ThreadPoolExecutor(2))
port = server.add_insecure_port('127.0.0.1:0')
server.start()
channel = grpc.insecure_channel(f'127.0.0.1:{port}')
grpc.channel_ready_future(channel).result(10)
channel.close()
server.stop(0).wait()
""",
    "websockets": """
import asyncio, websockets
async def main():
    async with websockets.serve(lambda ws: ws.send('x'), '127.0.0.1', 8124):
        async with websockets.connect('ws://127.0.0.1:8124') as ws:
            assert await ws.recv() == 'x'
asyncio.run(main())
""",
}
