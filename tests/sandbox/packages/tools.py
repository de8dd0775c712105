"""Packages for texts, and those that use processes, signals and other parts of the system."""

TEXT = {
    "lxml": """
from lxml import etree
assert etree.fromstring('<a><b/></a>').xpath('//b')
""",
    "beautifulsoup4": """
import bs4
assert bs4.BeautifulSoup('<p>x</p>', 'html.parser').p.text == 'x'
""",
    "cryptography": """
from cryptography.fernet import Fernet as F
f = F(F.generate_key())
assert f.decrypt(f.encrypt(b'x')) == b'x'
""",
    "pycryptodome": """
from Crypto.Hash import SHA256
assert SHA256.new(b'x').hexdigest()
""",
    "orjson": """
import orjson
assert orjson.loads(orjson.dumps({'a': 1})) == {'a': 1}
""",
    "pydantic": """
import pydantic
M = pydantic.create_model('M', x=(int, ...))
assert M(x='1').x == 1
""",
    "pyyaml": """
import yaml
assert yaml.safe_load('a: 1') == {'a': 1}
""",
    "jinja2": """
import jinja2
assert jinja2.Template('{{ 1 + 1 }}').render() == '2'
""",
    "msgpack": """
import msgpack
assert msgpack.unpackb(msgpack.packb([1])) == [1]
""",
    "protobuf": """
from google.protobuf import struct_pb2 as s
assert s.Struct().SerializeToString() == b''
""",
    "regex": """
import regex
assert regex.findall('\\\\p{L}', 'a1b') == ['a', 'b']
""",
    "nltk": """
from nltk.stem import PorterStemmer as P
assert P().stem('running') == 'run'
""",
    "reportlab": """
from reportlab.pdfgen.canvas import Canvas
c = Canvas('r.pdf')
c.drawString(9, 9, 'x')
c.save()
""",
}

SYSTEM = {
    "psutil": """
import psutil
p = psutil.Process()
(p.open_files(), p.net_connections(), p.threads(), p.memory_maps())
(p.ionice(), p.cpu_affinity(p.cpu_affinity()), p.nice(5))
psutil.net_if_addrs()
psutil.cpu_percent(0.05)
""",
    "aiofile": """
import asyncio, aiofile
exec('async def m():\\n async with aiofile.async_open("x", "w+") as f: await f.write("x")')
asyncio.run(m())
""",
    "watchdog": """
import time, threading
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler as H
e = threading.Event()
h = H()
h.on_any_event = lambda _: e.set()
o = Observer()
o.schedule(h, '.')
o.start()
open('seen', 'w').close()
assert e.wait(5)
o.stop()
o.join()
""",
    "pexpect": """
from pexpect.popen_spawn import PopenSpawn
child = PopenSpawn('cat')
child.sendline('hi')
child.expect('hi')
child.sendeof()
assert child.wait() == 0
""",
    "ipython": """
import os
os.environ['IPYTHONDIR'] = '/tmp/i'
from IPython.core.interactiveshell import InteractiveShell as I
assert I().run_cell('6 * 7').result == 42
""",
    "dask[array]": """
import dask.array as da
assert da.ones(1000, chunks=100).sum().compute() == 1000
""",
    "pytest": """
import subprocess, sys
open('test_x.py', 'w').write('def test_x(tmp_path): pass')
subprocess.run([sys.executable, '-m', 'pytest', '-q', 'test_x.py'], check=True, stdout=subprocess.DEVNULL)
""",
    "black": """
import black
assert black.format_str('x=1', mode=black.Mode()) == 'x = 1\\n'
""",
    "mypy": """
from mypy import api
open('y.py', 'w').write('x: int = 1')
assert api.run(['y.py', '--cache-dir=/tmp/m'])[2] == 0
""",
    "setproctitle": """
import setproctitle
setproctitle.setproctitle('named')
assert setproctitle.getproctitle() == 'named'
""",
    "python-daemon": """
import daemon
daemon.daemon.prevent_core_dump()
""",
    "posix-ipc": """
import posix_ipc as p
s = p.Semaphore(None, p.O_CREX, initial_value=1)
s.acquire()
s.unlink()
""",
    "py-spy": """
import subprocess, sys, os, time
p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(9)'])
time.sleep(0.5)
o = subprocess.run(['py-spy', 'dump', '--pid', str(p.pid)], capture_output=True, text=True)
p.kill()
assert 'idle' in o.stdout, o
""",
}
