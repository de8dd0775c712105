"""What to run: `--file`, a .tar, a directory, a file, or standard input, whichever is given first."""

from __future__ import annotations

import os
import stat
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import asyncclick
from anyio import to_thread
from attrs import frozen

from pyexec_client.source import Source, is_tar_name

_T = TypeVar("_T")

_SPILL_BYTES = 500 * 1000 * 1000
_PIECE_BYTES = 1024 * 1024
_REQUIREMENTS = "requirements.txt"
_RUN_TAR = "put it into a file whose name ends in .tar, and run that"
_NOTHING = "there is nothing to run: name a file, a directory or a .tar, or pipe a script in"


@frozen(kw_only=True)
class Input:
    """The chosen source, and the text of the requirements.txt at its root, if that lists anything."""

    source: Source
    requirements: str | None = None
    is_stdin: bool = False
    unused: str | None = None


async def choose(argument: str | None, files: Sequence[str]) -> Input:
    """The input that these arguments mean; UsageError, which says why, if there is none."""
    if files:
        members = _named_files(files)
        listed = members.get(_REQUIREMENTS)
        found = _requirements(listed) if listed else None
        return Input(source=members, requirements=found, unused=argument)
    if argument is None or argument == "-":
        return Input(source={"main.py": await _read_stdin()}, is_stdin=True)
    path, mode = Path(argument), _mode(argument, argument, "no such file, directory or command")
    if stat.S_ISDIR(mode):
        return Input(source=path, requirements=_requirements(path / _REQUIREMENTS))
    if not stat.S_ISREG(mode):  # a named pipe, or the shell's <(…)
        return Input(source={"main.py": await _read_stream(path)})
    return await to_thread.run_sync(_file, path)


async def read_text(name: str, flag: str) -> str:
    """The text of the file that a flag names, `-` being standard input."""
    try:
        content = await _blocking(sys.stdin.buffer.read if name == "-" else Path(name).read_bytes)
        return str(content, "utf-8")
    except OSError as problem:
        raise asyncclick.UsageError(f"{flag} {name}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise asyncclick.UsageError(
            f"{flag} {name}: it must be UTF-8 text, and is not at byte {problem.start}"
        ) from problem


def _named_files(names: Sequence[str]) -> dict[str, Path]:
    members: dict[str, Path] = {}
    for name in names:
        path, mode = Path(name), _mode(name, f"--file {name}")
        if not stat.S_ISREG(mode):
            raise asyncclick.UsageError(f"--file {name}: it is not a file; give a directory as INPUT")
        inside = _relative(name)
        if members.setdefault(inside, path) is not path:
            raise asyncclick.UsageError(f"--file {name}: there is another {inside} already")
    return members


def _file(path: Path) -> Input:
    if is_tar_name(path):
        return Input(source=path, requirements=_requirements_in_tar(path))
    with path.open("rb") as file:
        _refuse_tar(file.read(tarfile.BLOCKSIZE), str(path))
    return Input(source=path)


def _mode(name: str, spoken: str, missing: str = "no such file") -> int:
    try:
        return os.stat(name).st_mode
    except FileNotFoundError as problem:
        raise asyncclick.UsageError(f"{spoken}: {missing}") from problem
    except OSError as problem:
        raise asyncclick.UsageError(f"{spoken}: {problem.strerror}") from problem


def _relative(name: str) -> str:
    """The path as it will be in the archive: relative to here, or the bare name of what lies elsewhere."""
    relative = os.path.relpath(name)
    return (
        os.path.basename(relative)
        if relative.startswith(os.pardir + os.sep)
        else relative.replace(os.sep, "/")
    )


def _requirements(path: Path) -> str | None:
    return _listing(path.read_bytes()) if path.is_file() else None


def _requirements_in_tar(path: Path) -> str | None:
    try:
        with tarfile.open(path, "r:") as archive:
            for header in archive:
                if header.isfile() and os.path.normpath(header.name) == _REQUIREMENTS:
                    file = archive.extractfile(header)
                    return _listing(file.read()) if file else None
    except tarfile.TarError:
        return None  # the server says better what is wrong with it
    return None


def _listing(content: bytes) -> str | None:
    """The text of a requirements.txt; None if nothing stands in it."""
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as problem:
        raise asyncclick.UsageError(
            f"{_REQUIREMENTS}: it must be UTF-8 text, and is not at byte {problem.start}"
        ) from problem
    return text if text.strip() else None


async def _blocking(read: Callable[[], _T]) -> _T:
    """Read in a thread that Ctrl-C need not wait for."""
    return await to_thread.run_sync(read, abandon_on_cancel=True)


async def _read_stdin() -> bytes | BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise asyncclick.UsageError(_NOTHING)
    content = await _blocking(lambda: _read_whole(sys.stdin.buffer, "standard input"))
    if content == b"":
        raise asyncclick.UsageError(f"standard input is empty: {_NOTHING}")
    return content


async def _read_stream(path: Path) -> bytes | BinaryIO:
    def read() -> bytes | BinaryIO:
        with path.open("rb") as stream:
            return _read_whole(stream, str(path))

    content = await _blocking(read)
    if content == b"":
        raise asyncclick.UsageError(f"{path}: it is empty: {_NOTHING}")
    return content


def _refuse_tar(start: bytes, name: str) -> None:
    """Say so if a script that starts like this is a tar."""
    if start[257:262] == b"ustar":
        raise asyncclick.UsageError(f"{name} is a tar: {_RUN_TAR}")


def _read_whole(stream: BinaryIO, name: str) -> bytes | BinaryIO:
    """All of it: a tar needs the size before the contents. What is large is kept on disk."""
    kept = cast("BinaryIO", tempfile.SpooledTemporaryFile(_SPILL_BYTES))  # noqa: SIM115 closed with the process
    while piece := stream.read(_PIECE_BYTES):
        if kept.tell() == 0:
            _refuse_tar(piece, name)
        kept.write(piece)
    if kept.tell() > _PIECE_BYTES:
        return kept
    with kept:
        kept.seek(0)
        return kept.read()
