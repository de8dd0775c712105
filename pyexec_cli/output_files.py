"""Download the output files of an execution."""

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
from .skipped_files import print_skipped_files

_MEMORY_BYTES = 16 * 1024 * 1024


async def download_output_files(
    client: AsyncClient, result: Result, directory: str, console: Console
) -> None:
    """Write the output files to a directory. Existing files are replaced."""
    print_skipped_files(result, console)
    if not result.files:
        return
    with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as spool:
        async with aclosing(client.files(result.execution_id)) as chunks:
            async for chunk in chunks:
                await to_thread.run_sync(spool.write, chunk)
        spool.seek(0)
        await to_thread.run_sync(_extract, spool, Path(directory), console)


def _extract(archive: IO[bytes], directory: Path, console: Console) -> None:
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for header in tar:
                if header.isreg():  # the server sends no links; directories are created when needed
                    target = directory / _checked(header.name)
                    _write(target, header, tar)
                    console.debug(f"wrote {target}")
    except tarfile.TarError as error:
        raise PyexecError(f"cannot read the output files: {error}") from error


def _checked(name: str) -> PurePosixPath:
    """Return the path, or raise if it leads out of the output directory."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise PyexecError(f"unsafe path in the output files: {name}")
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
