"""`python3 dev/image_size.py NAME`: print the size of an image as `docker save | gzip`, in total and by part."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import dockerd
from console import SetupError, run_main
from docker_api import DockerEngine

_BLOCK = 1 << 20
_GZIP_WBITS = 31  # makes zlib write a gzip header
_PARTS = (
    ("uv, the installer", r"opt/.*/share/python-executor/uv$"),
    ("python-executor", r"opt/.*/site-packages/(pyexec|python_executor)"),
    ("obstore", r"opt/.*/site-packages/obstore"),
    ("uvloop", r"opt/.*/site-packages/uvloop"),
    ("aiohttp", r"opt/.*/site-packages/aiohttp[/-]"),
    ("OpenTelemetry and protobuf", r"opt/.*/site-packages/(opentelemetry|google|protobuf)"),
    (
        "MCP SDK and its packages",
        r"opt/.*/site-packages/(mcp|pydantic|starlette|sse_starlette|uvicorn|httpx2|httpcore2|h11|jwt"
        r"|jsonschema|referencing|rpds|annotated_types|typing_inspection|python_multipart|truststore)",
    ),
    ("other packages", r"opt/"),
    ("standard library, compiled modules", r".*/lib-dynload/"),
    ("standard library", r".*/python3\.\d+/"),
    ("interpreter", r".*/(bin/python|lib/libpython)3"),
    ("OpenSSL", r".*/lib(crypto|ssl)\.so"),
    ("glibc and other libraries", r".*\.so[.\d]*$"),
    ("certificates, licences, accounts", r""),
)
"""Name and path pattern; a file belongs to the first part that matches."""


@dataclass
class _Part:
    """The size of one part, in bytes: uncompressed, and what it adds to the compressed image."""

    uncompressed: int = 0
    compressed: int = 0


@dataclass
class ImageSize:
    """The compressed size of the whole image, and the sizes of its parts, in bytes.

    The image is compressed once. What the compressor emits while it reads a file counts for the part of the file; it
    lags behind by some kilobytes, which is little compared with a part."""

    compressed: int = 0
    parts: dict[str, _Part] = field(default_factory=dict)

    def table(self) -> Iterator[str]:
        """Yield the lines of a Markdown table, largest part first; MB are millions of bytes."""
        yield "| part | MB | MB compressed |"
        yield "|---|---|---|"
        parts = sorted(self.parts.items(), key=lambda item: -item[1].compressed)
        for name, part in parts:
            yield f"| {name} | {part.uncompressed / 1e6:.1f} | {part.compressed / 1e6:.1f} |"
        uncompressed = sum(part.uncompressed for part in self.parts.values())
        yield f"| the image | {uncompressed / 1e6:.1f} | {self.compressed / 1e6:.1f} |"


def main() -> int:
    if len(sys.argv) != 2:
        raise SetupError("usage: python3 dev/image_size.py NAME")
    print_sizes(dockerd.ensure(), sys.argv[1])
    return 0


def print_sizes(engine: DockerEngine, image: str) -> None:
    """Print the table of an image."""
    for line in measure(engine, image).table():
        print(line)


def measure(engine: DockerEngine, image: str) -> ImageSize:
    """Stream the image once through `docker save` and measure it."""
    size = ImageSize()
    command = ["docker", "--host", engine.address, "save", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as save:
        if save.stdout is None:
            raise AssertionError("docker save has no stdout pipe")
        compressor = zlib.compressobj(wbits=_GZIP_WBITS)
        stream = _CountingReader(save.stdout, compressor, size)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    _add_layer(content, size)
        stream.read_all()
        size.compressed += len(compressor.flush())
    if save.returncode != 0:
        raise SetupError(f"Cannot measure {image}: docker save exited with code {save.returncode}.")
    return size


class _CountingReader:
    """A file that counts the compressed size of the bytes that are read from it."""

    def __init__(self, file: IO[bytes], compressor: zlib._Compress, size: ImageSize) -> None:
        self._file = file
        self._compressor = compressor
        self._size = size

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._size.compressed += len(self._compressor.compress(data))
        return data

    def read_all(self) -> None:
        while self.read(_BLOCK):
            pass


def _add_layer(content: IO[bytes], size: ImageSize) -> None:
    try:
        with tarfile.open(fileobj=content, mode="r|*") as layer:
            for member in layer:
                file = layer.extractfile(member) if member.isreg() else None
                if file is not None:
                    _add_file(member.name, file, size)
    except tarfile.ReadError:  # not a layer, but the image's JSON metadata
        return


def _add_file(path: str, file: IO[bytes], size: ImageSize) -> None:
    name = next(name for name, pattern in _PARTS if re.match(pattern, path))
    part = size.parts.setdefault(name, _Part())
    before = size.compressed
    while data := file.read(_BLOCK):
        part.uncompressed += len(data)
    part.compressed += size.compressed - before


if __name__ == "__main__":
    sys.exit(run_main(main))
