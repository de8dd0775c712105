"""The output files of a run: the patterns that a caller may use, and the check of what a sandbox sends."""

import posixpath
import re
from collections.abc import Iterator, Sequence

from attrs import define, field, frozen

from pyexec.errors import InvalidRequest, SandboxBroken, quote

WORK_DIR = "work"
PATTERNS_MAX = 100
PATTERN_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 255
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that no path of an output file may contain: control characters, line ends, bytes that are not UTF-8."""


@frozen(kw_only=True)
class FileLimits:
    """The limits of a run's output files: bytes of all contents, number of files, bytes of all paths and of one path.

    The terminal event contains the paths, and must fit into one append to the event log."""

    bytes_max: int
    files_max: int = 1000
    names_bytes_max: int = 32 * 1024
    path_bytes_max: int = 1024


@frozen(kw_only=True)
class OutputFile:
    """An output file."""

    path: str
    size: int


@frozen(kw_only=True)
class OutputFiles:
    """The output files of a run. The blob contains their contents, one after the other; it is None if there is nothing
    to store.

    `truncated` is true if files are missing, or may be missing."""

    listed: tuple[OutputFile, ...] = ()
    truncated: bool = False
    blob: str | None = None


@define
class FileCheck:
    """Checks what a sandbox sends as output files, which is untrusted. Raises `SandboxBroken` for invalid data."""

    limits: FileLimits
    _files: list[OutputFile] = field(factory=list, init=False)
    _paths: set[str] = field(factory=set, init=False)
    _folders: set[str] = field(factory=set, init=False)
    _names_bytes: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _missing: int = field(default=0, init=False)

    def begin(self, path: str, size: int) -> None:
        """Check the announcement of the next file."""
        if self._missing:
            raise SandboxBroken(
                f"{self._missing} bytes of the output file {quote(self._files[-1].path)} are missing"
            )
        _check_path(path, self.limits.path_bytes_max)
        folders = set(_folders_of(path))
        if path in self._paths or path in self._folders or folders & self._paths:
            raise SandboxBroken(f"the output file {quote(path)} was sent twice, or is a directory, too")
        self._names_bytes += len(path.encode())
        self._bytes += size
        if (
            len(self._files) == self.limits.files_max
            or self._names_bytes > self.limits.names_bytes_max
            or self._bytes > self.limits.bytes_max
        ):
            raise SandboxBroken("the output files exceed their limits")
        self._files.append(OutputFile(path=path, size=size))
        self._paths.add(path)
        self._folders |= folders
        self._missing = size

    def feed(self, data: bytes) -> None:
        """Check the next bytes of the announced file."""
        if len(data) > self._missing:
            raise SandboxBroken("an output file is longer than announced")
        self._missing -= len(data)

    @property
    def announced(self) -> int:
        """The number of announced files."""
        return len(self._files)

    def complete(self) -> tuple[OutputFile, ...]:
        """Return the files that were received completely."""
        return tuple(self._files[:-1] if self._missing else self._files)


def normalize_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns of `output_files` relative to /work; raise `InvalidRequest` for a pattern outside of it."""
    if len(patterns) > PATTERNS_MAX:
        raise InvalidRequest(
            f"output_files has {len(patterns)} patterns; at most {PATTERNS_MAX} are allowed",
            field="output_files",
        )
    return tuple(_normalize_pattern(pattern, f"output_files[{at}]") for at, pattern in enumerate(patterns))


def _normalize_pattern(pattern: str, where: str) -> str:
    if not pattern or "\0" in pattern:
        raise InvalidRequest(f"{quote(pattern)} is not a file pattern", field=where)
    if len(pattern.encode()) > PATTERN_BYTES_MAX:
        raise InvalidRequest(f"the pattern is longer than {PATTERN_BYTES_MAX} bytes", field=where)
    if ".." in pattern.split("/"):
        raise InvalidRequest(f"{quote(pattern)} contains '..'; use a pattern below /work", field=where)
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if pattern.startswith("/"):
        if parts[:1] != [WORK_DIR]:
            raise InvalidRequest(f"{quote(pattern)} is outside /work; use a pattern below /work", field=where)
        del parts[0]
    if pattern.endswith("/") or not parts:
        raise InvalidRequest(
            f"{quote(pattern)} is a directory; append ** to match all files in it", field=where
        )
    if any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
        raise InvalidRequest(
            f"a file or directory name in the pattern is longer than {COMPONENT_BYTES_MAX} bytes", field=where
        )
    if parts[-1] == "**":
        parts.append("*")
    return "/".join(part for at, part in enumerate(parts) if part != "**" or parts[at - 1 : at] != ["**"])


def _check_path(path: str, bytes_max: int) -> None:
    normal = posixpath.normpath(path)
    if not path or path != normal or path.startswith("/") or normal.split("/")[0] in (".", ".."):
        raise SandboxBroken(f"the output file {quote(path)} is not below /work")
    if UNSAFE.search(path) or len(path.encode()) > bytes_max:
        raise SandboxBroken(f"the output file {quote(path)} has an unsafe or too long path")


def _folders_of(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path
