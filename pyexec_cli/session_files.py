"""The commands `session files`, `session upload`, `session download` and `session delete`."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import asyncclick
from anyio import to_thread

from .console import Console
from .flags import Flags, complete_path, with_flags
from .inputs import open_stdin
from .printable import printable_json
from .progress import progress_bar
from .table import table

_CHUNK_BYTES = 256 * 1024


@asyncclick.command(name="files")
@asyncclick.argument("session_id", metavar="ID")
@asyncclick.argument("glob", metavar="[GLOB]", required=False)
@asyncclick.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@with_flags(runs=False)
async def files(flags: Flags, session_id: str, glob: str | None, as_json: bool) -> int:
    """List the files of a session, or those that match GLOB.

    Their paths are relative to /work, the working directory of the session.
    """
    if glob == "":
        raise asyncclick.UsageError("GLOB: must not be empty")
    console = Console(flags)
    async with flags.client() as client:
        listed = await (await client.get_session(session_id)).files.list(glob)
    if as_json:
        objects = [{"path": each.path, "size": each.size} for each in listed]
        lines = [printable_json(json.dumps(each, ensure_ascii=False)) for each in objects]
    else:
        rows = [(f"{each.size:>12}", each.path) for each in listed]
        lines = table((f"{'SIZE':>12}", "PATH"), rows, not flags.quiet)
    await console.write("stdout", "".join(f"{line}\n" for line in lines).encode())
    if listed.truncated:
        console.info(f"only the first {len(listed)} files are listed; give a GLOB")
    return 0


@asyncclick.command(name="upload")
@asyncclick.argument("session_id", metavar="ID")
@asyncclick.argument("file", metavar="FILE", shell_complete=complete_path)
@asyncclick.argument("path", metavar="[PATH]", required=False)
@with_flags(runs=False)
async def upload(flags: Flags, session_id: str, file: str, path: str | None) -> int:
    """Copy FILE into a session, to PATH below /work.

    Without PATH, the file keeps its name. If PATH ends with /, it is a directory. If FILE is -,
    standard input is copied.
    """
    if file == "-":
        if not path:
            raise asyncclick.UsageError("Missing argument 'PATH': standard input has no name.")
        if path.endswith("/"):
            raise asyncclick.UsageError(f"{path}: standard input has no name; add a file name")
    target = _with_name(path or "", file)
    console = Console(flags)
    async with flags.client() as client:
        session = await client.get_session(session_id)
        try:
            source = await to_thread.run_sync(_open_source, file, abandon_on_cancel=True)
        except OSError as error:
            raise asyncclick.UsageError(f"{file}: {error.strerror}") from error
        try:
            await session.files.upload(target, _chunks(source, console))
        finally:
            console.status_line.close()
    console.debug(f"wrote {target}")
    return 0


@asyncclick.command(name="download")
@asyncclick.argument("session_id", metavar="ID")
@asyncclick.argument("path", metavar="PATH")
@asyncclick.argument("file", metavar="[FILE]", required=False, shell_complete=complete_path)
@with_flags(runs=False)
async def download(flags: Flags, session_id: str, path: str, file: str | None) -> int:
    """Copy the file at PATH of a session to FILE.

    Without FILE, it keeps its name. If FILE is a directory, it is saved there. If FILE is -, it is
    printed on standard output.
    """
    console = Console(flags)
    file = _local_name(file or "", path)
    async with flags.client() as client:
        session = await client.get_session(session_id)
        async with aclosing(session.files.download(path)) as chunks:
            first = await anext(chunks, b"")  # if the session has no such file, none is created here
            if file == "-":
                await console.write("stdout", first)
                async for chunk in chunks:
                    await console.write("stdout", chunk)
                return 0
            # Path would drop the slash of `folder/`, and a file would get the name of the folder.
            with await to_thread.run_sync(lambda: open(file, "wb", buffering=0)) as target:
                await to_thread.run_sync(target.write, first)
                async for chunk in chunks:
                    await to_thread.run_sync(target.write, chunk)
    console.debug(f"wrote {file}")
    return 0


@asyncclick.command(name="delete")
@asyncclick.argument("session_id", metavar="ID")
@asyncclick.argument("path", metavar="PATH")
@with_flags(runs=False)
async def delete(flags: Flags, session_id: str, path: str) -> int:
    """Delete the file at PATH of a session."""
    async with flags.client() as client:
        await (await client.get_session(session_id)).files.delete(path)
    Console(flags).debug(f"deleted {path}")
    return 0


def _with_name(path: str, file: str) -> str:
    """Return the path of an upload: if it names a directory, the file keeps its name in it."""
    return path if path and not path.endswith("/") else path + os.path.basename(file)


def _local_name(file: str, path: str) -> str:
    """Return the name of a downloaded file: if `file` is empty or a directory, it keeps its name in it."""
    if file == "-" or (file and not Path(file).is_dir()):
        return file
    return os.path.join(file, os.path.basename(path.rstrip("/")))


def _open_source(name: str) -> BinaryIO:
    return open_stdin() if name == "-" else Path(name).open("rb")


async def _chunks(source: BinaryIO, console: Console) -> AsyncGenerator[bytes, None]:
    with source:
        show = progress_bar(os.fstat(source.fileno()).st_size, console.status_line)
        sent = 0
        while chunk := await to_thread.run_sync(source.read, _CHUNK_BYTES, abandon_on_cancel=True):
            yield chunk
            sent += len(chunk)
            show(sent)
