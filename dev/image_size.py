"""What an image weighs as `docker save | gzip`, and which part of it how much."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from console import SetupError
from docker_api import DockerEngine

_BLOCK = 1 << 20
_GZIP = 31  # zlib's way to say: a gzip header
_PARTS = (
    ("uv, the installer", r"opt/.*/share/python-executor/uv$"),
    ("python-executor", r"opt/.*/site-packages/(pyexec|python_executor)"),
    ("obstore", r"opt/.*/site-packages/obstore"),
    ("uvloop", r"opt/.*/site-packages/uvloop"),
    ("aiohttp", r"opt/.*/site-packages/aiohttp[/-]"),
    ("aiohttp-apispec", r"opt/.*/site-packages/aiohttp_apispec"),
    ("other packages", r"opt/"),
    ("standard library, compiled modules", r".*/lib-dynload/"),
    ("standard library", r".*/python3\.\d+/"),
    ("interpreter", r".*/(bin/python|lib/libpython)3"),
    ("OpenSSL", r".*/lib(crypto|ssl)\.so"),
    ("glibc and other libraries", r".*\.so[.\d]*$"),
    ("certificates, licences, accounts", r""),
)


class _Part:
    """One that grows: what it weighs plain, and compressed by itself."""

    def __init__(self) -> None:
        self.plain = 0
        self.compressed = 0
        self._compressor = zlib.compressobj()

    def add(self, data: bytes) -> None:
        self.plain += len(data)
        self.compressed += len(self._compressor.compress(data))

    def end(self) -> None:
        self.compressed += len(self._compressor.flush())


@dataclass
class Weights:
    """Bytes: the whole image compressed, and the parts, each plain and compressed by itself."""

    compressed: int = 0
    parts: dict[str, _Part] = field(default_factory=dict)

    def table(self) -> Iterator[str]:
        """The lines of a table in Markdown, the heaviest part first; MB are millions of bytes."""
        yield "| part | MB | MB compressed |"
        yield "|---|---|---|"
        parts = sorted(self.parts.items(), key=lambda item: -item[1].compressed)
        for name, part in parts:
            yield f"| {name} | {part.plain / 1e6:.1f} | {part.compressed / 1e6:.1f} |"
        plain = sum(part.plain for part in self.parts.values())
        yield f"| the image | {plain / 1e6:.1f} | {self.compressed / 1e6:.1f} |"


def weigh(engine: DockerEngine, image: str) -> Weights:
    """Reads the whole image once, as it would travel."""
    weights = Weights()
    with subprocess.Popen(
        ["docker", "--host", engine.address, "save", image], stdout=subprocess.PIPE
    ) as save:
        if save.stdout is None:
            raise AssertionError("a pipe was asked for")
        compressor = zlib.compressobj(wbits=_GZIP)
        saved = _Tee(save.stdout, compressor, weights)
        with tarfile.open(fileobj=saved, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    _weigh_layer(content, weights)
        saved.read_all()
        weights.compressed += len(compressor.flush())
    if save.returncode != 0:
        raise SetupError(f"Could not weigh {image}: docker save ended with {save.returncode}.")
    for part in weights.parts.values():
        part.end()
    return weights


class _Tee:
    """A file whose bytes are counted compressed as they are read."""

    def __init__(self, file: IO[bytes], compressor: zlib._Compress, weights: Weights) -> None:
        self._file = file
        self._compressor = compressor
        self._weights = weights

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._weights.compressed += len(self._compressor.compress(data))
        return data

    def read_all(self) -> None:
        while self.read(_BLOCK):
            pass


def _weigh_layer(content: IO[bytes], weights: Weights) -> None:
    try:
        with tarfile.open(fileobj=content, mode="r|*") as layer:
            for member in layer:
                file = layer.extractfile(member) if member.isreg() else None
                if file is not None:
                    _weigh_file(member.name, file, weights)
    except tarfile.ReadError:  # not a layer, but what is said about them
        return


def _weigh_file(path: str, file: IO[bytes], weights: Weights) -> None:
    name = next(name for name, pattern in _PARTS if re.match(pattern, path))
    part = weights.parts.setdefault(name, _Part())
    while data := file.read(_BLOCK):
        part.add(data)
