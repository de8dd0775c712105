"""Choose the input: `--file`, else a .tar, a directory or a file, else standard input."""

from __future__ import annotations

import codecs
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
_CHUNK_BYTES = 1024 * 1024
_REQUIREMENTS = "requirements.txt"
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_RENAME_TAR = "save it to a file whose name ends in .tar, and run that file"
_GIVE_INPUT = "give a file, a directory or a .tar, or pipe a script to standard input"


@frozen(kw_only=True)
class Input:
    """The chosen source, and the text of the requirements.txt at its root, if it lists any packages."""

    source: Source
    requirements: str | None = None
    is_stdin: bool = False
    unused: str | None = None


async def choose(
    argument: str | None, files: Sequence[str], explain: Callable[[str], str] | None = None
) -> Input:
    """Choose the input from the arguments. Raise UsageError if there is none or it is unusable.

    `explain` returns the error message for an input that does not exist (default: `explain_missing`)."""
    if files:
        members = _named_files(files)
        listed = members.get(_REQUIREMENTS)
        found = _read_requirements(listed) if listed else None
        return Input(source=members, requirements=found, unused=argument)
    if argument is None or argument == "-":
        return Input(source={"main.py": await _read_stdin()}, is_stdin=True)
    path, mode = Path(argument), _mode(argument, argument, explain or explain_missing)
    if stat.S_ISDIR(mode):
        return Input(source=path, requirements=_read_requirements(path / _REQUIREMENTS))
    if not stat.S_ISREG(mode):  # a named pipe, or the shell's <(…)
        return Input(source={"main.py": await _read_stream(path)})
    return await to_thread.run_sync(_file, path)


async def read_text(name: str, flag: str) -> str:
    """Read the text file that a flag names; `-` means standard input."""
    try:
        return str(await _read(name, flag), "utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{flag} {name}", error) from error


async def read_requirements(name: str, flag: str) -> str:
    """Read the requirements.txt that a flag names; `-` means standard input."""
    return decode_requirements(await _read(name, flag), f"{flag} {name}")


async def _read(name: str, flag: str) -> bytes:
    try:
        return await _blocking(open_stdin().read if name == "-" else Path(name).read_bytes)
    except OSError as error:
        raise asyncclick.UsageError(f"{flag} {name}: {error.strerror}") from error


def open_stdin() -> BinaryIO:
    """Return standard input. One that the parent process has closed is empty."""
    return Path(os.devnull).open("rb") if sys.stdin is None else sys.stdin.buffer


def _named_files(names: Sequence[str]) -> dict[str, Path]:
    members: dict[str, Path] = {}
    for name in names:
        path, mode = Path(name), _mode(name, f"--file {name}")
        if not stat.S_ISREG(mode):
            raise asyncclick.UsageError(f"--file {name}: not a regular file; pass a directory as INPUT")
        archive_path = _relative(name)
        if members.setdefault(archive_path, path) is not path:
            raise asyncclick.UsageError(f"--file {name}: {archive_path} was already given")
    return members


def is_missing(argument: str) -> bool:
    """Return True if the input does not exist."""
    return argument != "-" and not os.path.exists(argument)


def explain_missing(argument: str) -> str:
    """Return the error message for an input that does not exist. It may be a mistyped command, or source text."""
    if any(character in argument for character in "(='\" "):
        return "no such file, directory or command; eval runs source text"
    from difflib import get_close_matches

    from .commands import COMMANDS

    near = [] if "." in argument or "/" in argument else get_close_matches(argument, COMMANDS, 1)
    return "no such file, directory or command" + (f"; did you mean {near[0]!r}?" if near else "")


def _file(path: Path) -> Input:
    if is_tar_name(path):
        return Input(source=path, requirements=_read_requirements_in_tar(path))
    with path.open("rb") as file:
        _refuse_tar(file.read(tarfile.BLOCKSIZE), str(path))
    return Input(source=path)


def _mode(name: str, label: str, explain: Callable[[str], str] = lambda _name: "no such file") -> int:
    try:
        return os.stat(name).st_mode
    except FileNotFoundError as error:
        raise asyncclick.UsageError(f"{label}: {explain(name)}") from error
    except OSError as error:
        raise asyncclick.UsageError(f"{label}: {error.strerror}") from error


def _relative(name: str) -> str:
    """Return the path inside the archive: relative to the working directory, or the bare name if outside it."""
    relative = os.path.relpath(name)
    return (
        os.path.basename(relative)
        if relative.startswith(os.pardir + os.sep)
        else relative.replace(os.sep, "/")
    )


def _read_requirements(path: Path) -> str | None:
    return _decode_requirements(path.read_bytes()) if path.is_file() else None


def _read_requirements_in_tar(path: Path) -> str | None:
    try:
        with tarfile.open(path, "r:") as archive:
            found = None
            for header in archive:
                if header.isfile() and os.path.normpath(header.name) == _REQUIREMENTS:
                    found = header  # a later member replaces an earlier one
            file = archive.extractfile(found) if found else None
            return _decode_requirements(file.read()) if file else None
    except (tarfile.TarError, ArithmeticError, LookupError, ValueError):  # tarfile raises all of them
        return None  # the server reports what is wrong with the archive


def _decode_requirements(content: bytes) -> str | None:
    """Decode a requirements.txt; return None if it is blank."""
    text = decode_requirements(content, _REQUIREMENTS)
    return text if text.strip() else None


def decode_requirements(content: bytes, label: str) -> str:
    """Decode a requirements.txt as pip does: a byte order mark decides, else the text is UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.removeprefix(mark).decode(encoding)
            except UnicodeDecodeError as error:
                raise asyncclick.UsageError(f"{label}: not {encoding[:-3].upper()} text") from error
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(label, error) from error


def _not_utf8(label: str, error: UnicodeDecodeError) -> asyncclick.UsageError:
    return asyncclick.UsageError(f"{label}: not UTF-8 text (invalid byte at offset {error.start})")


async def _blocking(read: Callable[[], _T]) -> _T:
    """Call `read` in a thread, so that Ctrl-C does not wait for it."""
    return await to_thread.run_sync(read, abandon_on_cancel=True)


async def _read_stdin() -> bytes | BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise asyncclick.UsageError(f"nothing to run: {_GIVE_INPUT}")
    content = await _blocking(lambda: _read_whole(sys.stdin.buffer, "standard input"))
    if content == b"":
        raise asyncclick.UsageError(f"nothing to run: standard input is empty; {_GIVE_INPUT}")
    return content


async def _read_stream(path: Path) -> bytes | BinaryIO:
    def read() -> bytes | BinaryIO:
        with path.open("rb") as stream:
            return _read_whole(stream, str(path))

    content = await _blocking(read)
    if content == b"":
        raise asyncclick.UsageError(f"nothing to run: {path} is empty; {_GIVE_INPUT}")
    return content


def _refuse_tar(start: bytes, name: str) -> None:
    """Raise UsageError if a script with these first bytes is a tar archive."""
    if start[257:262] == b"ustar":
        raise asyncclick.UsageError(f"{name} is a tar archive: {_RENAME_TAR}")


def _read_whole(stream: BinaryIO, name: str) -> bytes | BinaryIO:
    """Read a stream to its end: a tar header needs the size before the contents. Keep large contents on disk."""
    spool = cast("BinaryIO", tempfile.SpooledTemporaryFile(_SPILL_BYTES))  # noqa: SIM115 closed at exit
    while chunk := stream.read(_CHUNK_BYTES):
        if spool.tell() == 0:
            _refuse_tar(chunk, name)
        spool.write(chunk)
    if spool.tell() > _CHUNK_BYTES:
        return spool
    with spool:
        spool.seek(0)
        return spool.read()
