"""A registry for one test (the part of the OCI distribution API that a pull needs), which the local engine trusts."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@define
class Registry:
    """The content of the registry: manifests by image name, blobs by digest."""

    address: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(factory=dict)
    blobs: dict[str, bytes] = field(factory=dict)
    pulled: list[str] = field(factory=list)
    endless: set[str] = field(factory=set)
    """The images whose blobs arrive byte by byte, and never end."""
    begun: threading.Event = field(factory=threading.Event)
    given_up: threading.Event = field(factory=threading.Event)
    """Set when the first endless blob begins, and when the engine has closed its connection."""

    def name(self, image: str) -> str:
        """Return the full name of an image, for a pull."""
        return f"{self.address}/{image}:1"

    def put(self, image: str, layer: bytes, *, architecture: str = "amd64", listed: bool = False) -> None:
        """Add an image with one layer, a tar. With `listed`, add a manifest list with this architecture, too."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
        described = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blob(_CONFIG, json.dumps(config).encode()),
            "layers": [self._blob(_LAYER, gzip.compress(layer, 0))],
        }
        manifest = json.dumps(described).encode()
        self.manifests[f"{image}:1"] = self.manifests[f"{image}:{digest(manifest)}"] = (_MANIFEST, manifest)
        if not listed:
            return
        entry = {
            "mediaType": _MANIFEST,
            "digest": digest(manifest),
            "size": len(manifest),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        index = {"schemaVersion": 2, "mediaType": _LIST, "manifests": [entry]}
        text = json.dumps(index).encode()
        self.manifests[f"{image}:1"] = self.manifests[f"{image}:{digest(text)}"] = (_LIST, text)

    def _blob(self, kind: str, data: bytes) -> Mapping[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def python_layer(image: str) -> bytes:
    """Return all files of an image on the engine, as one layer."""
    created = subprocess.run(["docker", "create", image], check=True, stdout=subprocess.PIPE, text=True)
    container = created.stdout.strip()
    try:
        return subprocess.run(["docker", "export", container], check=True, stdout=subprocess.PIPE).stdout
    finally:
        subprocess.run(["docker", "rm", container], check=True, stdout=subprocess.PIPE)


def layer_of(**files: bytes) -> bytes:
    """Return a layer with these files in the root directory."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


@contextmanager
def running_registry(host: str = "127.0.0.1") -> Iterator[Registry]:
    """Run a registry on this machine, at the address `host`."""
    registry, stopped = Registry(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = self.path.removeprefix("/v2/").rsplit("/", 2)
            if self.path == "/v2/":
                return self.answer("application/json", b"{}")
            image, kind, reference = parts if len(parts) == 3 else ("", "", "")
            if kind == "manifests" and f"{image}:{reference}" in registry.manifests:
                return self.answer(*registry.manifests[f"{image}:{reference}"])
            if kind == "blobs" and reference in registry.blobs:
                if self.command == "GET":
                    registry.pulled.append(image)
                    if image in registry.endless:
                        return self.send_endlessly()
                return self.answer("application/octet-stream", registry.blobs[reference])
            message = "x" * 1_000_000 if "verbose" in image else "manifest unknown"
            body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": message}]})
            return self.answer("application/json", body.encode(), 404)

        do_HEAD = do_GET

        def send_endlessly(self) -> None:
            registry.begun.set()
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            try:
                while not stopped.wait(0.05):
                    self.wfile.write(b"\0")
            except OSError:
                registry.given_up.set()
            self.close_connection = True

        def answer(self, kind: str, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    registry.address = f"{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="registry")
    thread.start()
    try:
        yield registry
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
