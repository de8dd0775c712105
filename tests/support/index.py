"""A package index for one test: it serves generated wheels where setup containers can reach this machine."""

import base64
import hashlib
import io
import secrets
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import frozen

from tests.support.containers import gateway


@frozen
class Index:
    """A running index: its URL and network for containers, and its files."""

    url: str
    network: str
    files: Mapping[str, bytes]

    def sha256(self, file: str) -> str:
        return hashlib.sha256(self.files[file]).hexdigest()


def wheel(name: str, version: str, source: str, requires: str | None = None) -> tuple[str, bytes]:
    """Return the file name and the content of a wheel with one module."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", data.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@contextmanager
def own_network() -> Iterator[str]:
    """Create a Docker network for one test; remove it at the end."""
    name = f"pyexec-test-{secrets.token_hex(4)}"
    subprocess.run(["docker", "network", "create", name], check=True, stdout=subprocess.PIPE)
    try:
        yield name
    finally:
        subprocess.run(["docker", "network", "rm", name], check=True, stdout=subprocess.PIPE)


@contextmanager
def running_index(network: str, *wheels: tuple[str, bytes], password: str = "") -> Iterator[Index]:
    """Run an index with these wheels (PEP 503) that containers on `network` can reach.

    With a password, it serves only the user `reader`."""
    files = dict(wheels)
    credentials = base64.b64encode(f"reader:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if password and self.headers.get("Authorization") != f"Basic {credentials}":
                return self.send_error(401)
            parts = self.path.strip("/").split("/")
            if parts[0] == "files" and parts[-1] in files:
                return self.answer(files[parts[-1]])
            names = [file for file in files if file.partition("-")[0] == parts[-1].replace("-", "_")]
            if parts[0] != "simple" or not names:
                return self.send_error(404)
            links = "".join(f'<a href="/files/{name}">{name}</a>\n' for name in names)
            return self.answer(f"<html><body>{links}</body></html>".encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    address = gateway(network)
    server = ThreadingHTTPServer((address, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="package index")
    thread.start()
    try:
        yield Index(f"http://{address}:{server.server_port}/simple", network, files)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
