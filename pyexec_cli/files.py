"""What a run brought back, written where the user wants it."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from typing import IO

from anyio import to_thread

from pyexec_client import AsyncClient, PyexecError, Result

from .console import Console

_MEMORY_BYTES = 16 * 1024 * 1024


async def bring_back(client: AsyncClient, result: Result, directory: str, console: Console) -> None:
    """Write what the run brought back below a directory. Existing files are replaced."""
    if result.files_truncated:
        console.note("some output files were left out: together they are too large")
    if not result.files:
        return
    with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as kept:
        async with aclosing(client.files(result.execution_id)) as chunks:
            async for chunk in chunks:
                await to_thread.run_sync(kept.write, chunk)
        kept.seek(0)
        await to_thread.run_sync(_extract, kept, Path(directory), console)


def _extract(archive: IO[bytes], directory: Path, console: Console) -> None:
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for header in tar:
                if header.isreg():  # directories are made as they are needed; the server sends no links
                    target = directory / _inside(header.name)
                    _write(target, header, tar)
                    console.detail(f"wrote {target}")
    except tarfile.TarError as problem:
        raise PyexecError(f"the output files cannot be read: {problem}") from problem


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise PyexecError(f"the output files hold {name}, which lies outside: nothing more is written")
    return path


def _write(target: Path, header: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    content = tar.extractfile(header)
    if content is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o666 | header.mode & 0o111
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with content, os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file)
